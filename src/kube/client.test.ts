/** Requests to an API server while this process gets another certificate. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { KubeClient } from "./client.ts";

test("another certificate ends nothing that is under way, and no connection of the old one is kept", async () => {
  const waiting: ServerResponse[] = [];
  const server = createServer((request, response) => {
    if (request.url === "/late") waiting.push(response);
    else response.end("{}");
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  let tls = {};
  const client = new KubeClient({
    url: `http://127.0.0.1:${port}`,
    tls: () => tls,
    headers: async () => await Promise.resolve({}),
    refused: () => false,
  });
  try {
    const late = client.request("GET", "/late");
    await client.request("GET", "/before");
    await expect.poll(() => waiting.length, { timeout: 60_000 }).toBe(1);
    tls = {};
    await client.request("POST", "/after", { body: {} });
    waiting[0]?.end('{"came":true}');
    expect(await late).toEqual({ came: true });
    const open = async (): Promise<number> =>
      await new Promise((resolve) => server.getConnections((_error, count) => resolve(count)));
    await expect.poll(open, { timeout: 60_000 }).toBe(1);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
