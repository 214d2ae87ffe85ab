/** Requests to an API server while this process gets another certificate. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { KubeClient } from "./client.ts";

/** A client of an API server here, as one identity. */
function clientOf(port: number, tls: () => object): KubeClient {
  return new KubeClient({
    url: `http://127.0.0.1:${port}`,
    tls,
    headers: async () => await Promise.resolve({}),
    refused: () => false,
  });
}

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
  const client = clientOf(port, () => tls);
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

test("what waits for a connection is not made yet, and when the client is closed it is not sent", async () => {
  const asked: string[] = [];
  let made = 0;
  const body = { toJSON: () => ({ number: (made += 1) }) };
  const server = createServer((request) => asked.push(request.url ?? ""));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // Another certificate each time: connections of the earlier ones are ended as well.
  const client = clientOf((server.address() as AddressInfo).port, () => ({}));
  try {
    const all = Array.from(
      { length: 40 },
      async (_, index) => await client.request("POST", `/${index}`, { body }),
    );
    const ends = Promise.allSettled(all);
    await expect.poll(() => asked.length, { timeout: 60_000 }).toBe(16);
    expect(made).toBe(16);
    client.close();
    const states = (await ends).map(({ status }) => status);
    expect(new Set(states)).toEqual(new Set(["rejected"]));
    await expect(client.request("GET", "/later")).rejects.toMatchObject({ code: "ERR_NODE_API" });
    expect(asked).toHaveLength(16);
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
