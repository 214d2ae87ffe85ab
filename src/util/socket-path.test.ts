import { mkdirSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import type { Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, expect, test } from "vitest";
import { connectUnix, listenUnix, socketPath } from "./socket-path.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-sock-"));
afterAll(() => rmSync(root, { recursive: true }));

const fds = (): number => readdirSync("/proc/self/fd").length;

/** A server that says hello and closes. */
const greeter = (): Server => createServer((socket) => socket.end("hello"));

test.each([
  ["short", "s.sock"],
  ["long", `${"d".repeat(120)}/${"e".repeat(120)}/agent.sock`],
])("%s paths", async (name, relative) => {
  const path = join(root, name, relative);
  mkdirSync(join(path, ".."), { recursive: true });
  const before = fds();
  const server = greeter();
  await listenUnix(server, path);
  const socket = await connectUnix(path);
  expect(await text(socket)).toBe("hello");
  socket.destroy();
  await new Promise((resolve) => server.close(resolve));
  expect(fds()).toBe(before);
});

test("errors name the system's cause and leave no descriptor", async () => {
  const before = fds();
  await expect(connectUnix(join(root, "missing.sock"))).rejects.toMatchObject({ code: "ENOENT" });
  const long = join(root, "x".repeat(150));
  mkdirSync(long);
  await expect(connectUnix(join(long, "missing.sock"))).rejects.toMatchObject({ code: "ENOENT" });
  await expect(
    connectUnix(join(long, "missing.sock"), AbortSignal.abort(new Error("stop"))),
  ).rejects.toThrow("stop");
  expect(fds()).toBe(before);
});

test("disposing twice closes once", () => {
  const long = join(root, "y".repeat(150));
  mkdirSync(long);
  const address = socketPath(join(long, "a.sock"));
  expect(address.path.length).toBeLessThan(60);
  address[Symbol.dispose]();
  address[Symbol.dispose]();
});
