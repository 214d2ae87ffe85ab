import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Duplex, duplexPair } from "node:stream";
import { describe, expect, test } from "vitest";
import { encodeReset, handshake, isToken, newToken } from "./handshake.ts";

const file = resolve(import.meta.dirname, "../../protocol/vectors/reset.json");
const vectors = JSON.parse(readFileSync(file, "utf8")) as {
  cases: { token: string; nonce: string; request: string; echo: string }[];
};
const never = new AbortController().signal;
const hex = (text: string): Buffer => Buffer.from(text, "hex");

test.each(vectors.cases)("golden vector $token", async ({ token, nonce, request, echo }) => {
  expect(encodeReset(hex(token), hex(nonce)).toString("hex")).toBe(request);
  const [host, agent] = duplexPair();
  const seen = new Promise<Buffer>((done) => agent.once("data", done));
  const shaking = handshake(host, {
    token: hex(token),
    nonce: hex(nonce),
    signal: never,
    timeoutMs: 5000,
  });
  expect((await seen).toString("hex")).toBe(request);
  agent.write(hex(echo));
  await shaking;
});

describe("the echo", () => {
  const token = randomBytes(16);
  const nonce = randomBytes(16);
  // Else half an echo and the first byte of the next would be a whole one, once in 256 runs.
  nonce.writeUInt8(token.readUInt8(0) ^ 1, 15);
  const echo = Buffer.concat([token, nonce]);
  const behind = Buffer.from("HTTP/2 begins here");

  test.each([
    ["at once", [echo, behind]],
    ["joined with what follows", [Buffer.concat([echo, behind])]],
    [
      "behind what an old session left",
      [randomBytes(70_000), Buffer.concat([randomBytes(100), echo, behind])],
    ],
    [
      "behind an old echo with another nonce",
      [Buffer.concat([token, randomBytes(16), echo, behind])],
    ],
    ["behind half an echo", [Buffer.concat([echo.subarray(0, 31), echo, behind])]],
    [
      "byte by byte",
      Array.from(Buffer.concat([Buffer.alloc(40), echo, behind]), (byte) => Buffer.from([byte])),
    ],
  ])("%s", async (_name, chunks) => {
    const [host, agent] = duplexPair();
    agent.resume();
    const shaking = handshake(host, { token, nonce, signal: never, timeoutMs: 5000 });
    for (const chunk of chunks) agent.write(chunk);
    await shaking;
    agent.end();
    const rest: Buffer[] = [];
    for await (const chunk of host as AsyncIterable<Buffer>) rest.push(chunk);
    expect(Buffer.concat(rest).toString()).toBe(behind.toString());
  });
});

describe("without an echo", () => {
  const options = { token: randomBytes(16), signal: never, timeoutMs: 30 };
  const silent = (): Duplex =>
    new Duplex({ read: () => undefined, write: (_chunk, _encoding, done) => done() });

  test("the time limit ends it and the stream", async () => {
    const stream = silent();
    await expect(handshake(stream, options)).rejects.toMatchObject({ code: "ERR_TIMEOUT_AGENT" });
    expect(stream.destroyed).toBe(true);
  });

  test("an abort ends it", async () => {
    const stream = silent();
    const signal = AbortSignal.abort(new Error("enough"));
    await expect(handshake(stream, { ...options, signal })).rejects.toThrow("enough");
    expect(stream.destroyed).toBe(true);
  });

  test("the stream's end ends it", async () => {
    const [host, agent] = duplexPair();
    agent.resume();
    const shaking = handshake(host, { ...options, timeoutMs: 5000 });
    agent.end();
    await expect(shaking).rejects.toMatchObject({ code: "ERR_AGENT_UNREACHABLE" });
  });
});

test("tokens", () => {
  expect(isToken(newToken())).toBe(true);
  expect(newToken()).not.toBe(newToken());
  expect(["", "0".repeat(31), "G".repeat(32), `${"0".repeat(32)}\n`].map(isToken)).toEqual([
    false,
    false,
    false,
    false,
  ]);
});
