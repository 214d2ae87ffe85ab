import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { createServer, request } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import type { GatewayKey } from "../../../model/gateway.ts";
import { Tokens } from "../../access/tokens.ts";
import { asE2bError } from "../errors.ts";
import { Uploads } from "./uploads.ts";

const hash = "a".repeat(64);
const keyOf = (project: string): GatewayKey =>
  ({ id: createHash("md5").update(project).digest("hex").slice(0, 8), project }) as GatewayKey;
const ours = keyOf("ours");
let good = [ours, keyOf("other"), keyOf("third")];
let directory: string;
let uploads: Uploads;
let server: Server;
let origin: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "vmsan-uploads-"));
  uploads = new Uploads(
    directory,
    new Tokens("0".repeat(64), { good: async () => await Promise.resolve(good) }),
  );
  server = createServer((asked, response) => {
    const { searchParams } = new URL(asked.url ?? "", "http://gateway");
    uploads.receive(asked, searchParams).then(
      () => response.writeHead(200).end(),
      (error: unknown) => response.writeHead(asE2bError(error).status).end(),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true, force: true });
});

async function put(url: string, body: Buffer, method = "PUT"): Promise<number> {
  return (await fetch(url, { method, body: new Uint8Array(body) })).status;
}

async function textOf(project: string): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of await uploads.open(project, hash)) parts.push(part);
  return Buffer.concat(parts).toString();
}

test("an archive is taken by its address alone, and given back unzipped, to its project", async () => {
  expect(await uploads.has("ours", hash)).toBe(false);
  const url = uploads.url(origin, ours, hash);
  expect(await put(url, gzipSync("content"))).toBe(200);
  expect(await textOf("ours")).toBe("content");
  expect(await uploads.has("ours", hash)).toBe(true);
  expect(await uploads.has("other", hash)).toBe(false);
  await expect(uploads.open("other", hash)).rejects.toThrow("not uploaded");
  expect(await put(url, Buffer.from("not zipped"))).toBe(200);
  expect(await textOf("ours")).toBe("not zipped");
});

test("any other address is refused", async () => {
  const url = uploads.url(origin, ours, hash);
  const name = /[0-9a-f]{64}/.exec(url)?.[0] ?? "";
  const other = /[0-9a-f]{64}/.exec(uploads.url(origin, keyOf("other"), hash))?.[0] ?? "";
  for (const wrong of [
    url.replace(name, other),
    url.replace(/expires=\d/, "expires=9"),
    url.replace(/signature=.*/, "signature="),
    url.replace(/signature=.*/, `signature=${"0".repeat(48)}`),
    url.split("?", 1)[0] ?? "",
  ])
    expect([wrong, await put(wrong, Buffer.from("x"))]).toEqual([wrong, 401]);
  expect(await put(url, Buffer.from("x"), "POST")).toBe(405);
  const all = good;
  good = all.filter((key) => key !== ours);
  expect(await put(url, Buffer.from("x"))).toBe(401);
  good = all;
  vi.useFakeTimers({ now: Date.now() + 3_600_001, toFake: ["Date"] });
  try {
    expect(await put(url, Buffer.from("x"))).toBe(401);
  } finally {
    vi.useRealTimers();
  }
  for (const bad of ["", "a", `${"a".repeat(63)}/`, "../".repeat(20), "A".repeat(64)])
    expect(() => uploads.url(origin, ours, bad)).toThrow("64 hex digits");
});

test("what has no size, is too large or is cut off leaves nothing", async () => {
  const now = async (): Promise<string[]> =>
    (await readdir(join(directory, "uploads"), { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map(({ name }) => name)
      .toSorted();
  const before = await now();
  const target = new URL(uploads.url(origin, keyOf("third"), hash));
  const send = (headers: Record<string, string>, body: string): Promise<number | undefined> =>
    new Promise((resolve, reject) => {
      const asked = request(target, { method: "PUT", headers }, (reply) => {
        reply.resume();
        resolve(reply.statusCode);
      });
      asked.on("error", reject);
      asked.write(body);
      if (headers["content-length"] === "9") setImmediate(() => asked.destroy(new Error("left")));
      else asked.end();
    });
  expect(await send({ "transfer-encoding": "chunked" }, "abc")).toBe(411);
  expect(await send({ "content-length": "99999999999999" }, "abc")).toBe(413);
  await expect(send({ "content-length": "9" }, "abc")).rejects.toThrow("left");
  await expect.poll(now).toEqual(before);
  expect(await uploads.has("third", hash)).toBe(false);
});

test("one project's archives leave others room", async () => {
  const gib = 2 ** 30;
  /** Begin to send an archive that is said to be so large. */
  const begin = async (project: string, bytes: number): Promise<number | "goes on"> => {
    const which = createHash("sha256").update(String(Math.random())).digest("hex");
    const target = new URL(uploads.url(origin, keyOf(project), which));
    return await new Promise((resolve) => {
      const asked = request(target, { method: "PUT", headers: { "content-length": bytes } });
      asked.on("response", (reply) => resolve(reply.resume().statusCode ?? 0));
      asked.on("error", () => undefined);
      asked.write("x");
      setTimeout(() => resolve("goes on"), 500);
      onTestFinished(() => void asked.destroy());
    });
  };
  expect(await begin("ours", 4 * gib)).toBe("goes on");
  expect(await begin("ours", 4 * gib - 1000)).toBe("goes on");
  expect(await begin("ours", 2000)).toBe(507);
  expect(await begin("other", 2000)).toBe("goes on");
});
