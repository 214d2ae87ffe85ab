import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, get } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { Gate } from "./gate.ts";
import { Keys } from "./keys.ts";
import { Tokens } from "./tokens.ts";

test("what a key has open ends when it is taken away; others' goes on", async () => {
  const directory = await mkdtemp(join(tmpdir(), "vmsan-gate-"));
  const keys = new Keys(directory);
  const silent = { info: () => undefined, error: () => undefined };
  const gate = new Gate(keys, new Tokens("0".repeat(64), keys), silent);
  // Answers that have no end.
  const server = createServer((request, response) => {
    void gate.admit(request).then(
      () => response.write("begun"),
      () => response.writeHead(401).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    gate.close();
    server.closeAllConnections();
    server.close();
    await rm(directory, { recursive: true });
  });
  const { port } = server.address() as AddressInfo;
  const begin = async (text: string): Promise<IncomingMessage> => {
    const asked = get({ port, agent: false, headers: { "x-api-key": text } });
    const [answer] = (await once(asked, "response")) as [IncomingMessage];
    answer.on("error", () => undefined);
    if (answer.statusCode === 200) await once(answer, "data");
    return answer;
  };
  const [lost, kept] = await Promise.all([keys.create({}), keys.create({})]);
  const [ending, going] = await Promise.all([begin(lost.text), begin(kept.text)]);
  const ended = new Promise<void>((resolve) => ending.once("close", () => resolve()));
  await keys.remove(lost.key.id);
  await ended;
  expect(ending.complete).toBe(false);
  expect(going.destroyed).toBe(false);
  expect((await begin(lost.text)).statusCode).toBe(401);
});
