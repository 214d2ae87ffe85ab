/** What older versions of E2B's SDKs send, and the newest does not. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { fakeDaemon } from "../../daemon/testing.ts";
import type { FakeDaemon } from "../../daemon/testing.ts";
import { layoutOf } from "../../util/paths.ts";
import { Keys } from "../access/keys.ts";
import { startGateway } from "../gateway.ts";
import type { ListeningGateway } from "../http/server.ts";

let daemon: FakeDaemon;
let gateway: ListeningGateway;
let key: string;
let made: { sandboxID: string; clientID: string; envdAccessToken: string };

beforeAll(async () => {
  daemon = await fakeDaemon();
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  key = (await new Keys(layoutOf(daemon.dir).gateway).create({ project: "ours" })).text;
  const answer = await send("/sandboxes", { templateID: "base", timeout: 60 });
  made = (await answer.json()) as typeof made;
});

afterAll(async () => {
  await gateway?.close();
  await daemon?.close();
});

async function send(
  path: string,
  body: object,
  headers: Record<string, string> = { "x-api-key": key },
): Promise<Response> {
  return await fetch(`${gateway.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body),
  });
}

test("a sandbox's ID with that of its host behind it is that sandbox (JavaScript 1.0 to 1.7)", async () => {
  const composed = `${made.sandboxID}-${made.clientID}`;
  expect((await send(`/sandboxes/${composed}/timeout`, { timeout: 60 })).status).toBe(204);
  const envd = {
    "e2b-sandbox-id": composed,
    "e2b-sandbox-port": "49983",
    "x-access-token": made.envdAccessToken,
  };
  expect((await send("/process.Process/List", {}, envd)).status).toBe(200);
  const port = { "e2b-sandbox-id": composed, "e2b-sandbox-port": "1", "x-api-key": key };
  // Nothing listens there; that it is not there would be 404.
  expect((await send("/", {}, port)).status).toBe(502);
  expect((await send(`/sandboxes/${made.sandboxID}-other/timeout`, { timeout: 60 })).status).toBe(
    404,
  );
});

test("connect with the headers of a sandbox's envd is a call of the control plane (Python 2.10, 2.20)", async () => {
  const headers = {
    "x-api-key": key,
    "e2b-sandbox-id": made.sandboxID,
    "e2b-sandbox-port": "49983",
  };
  const answer = await send(`/sandboxes/${made.sandboxID}/connect`, { timeout: 60 }, headers);
  expect(answer.status).toBe(200);
  expect(await answer.json()).toMatchObject({ sandboxID: made.sandboxID });
  // A guest's own server may have such a path.
  const other = await send("/sandboxes/x/connect", {}, { ...headers, "e2b-sandbox-port": "1" });
  expect(other.status).toBe(502);
});

test("after it the sandbox's token alone says which one is meant", async () => {
  const list = async (token: string): Promise<number> =>
    (await send("/process.Process/List", {}, { "x-access-token": token })).status;
  expect(await list(made.envdAccessToken)).toBe(200);
  expect(await list(`${made.envdAccessToken.slice(0, -1)}x`)).toBe(401);
  expect(await list("")).toBe(401);
});
