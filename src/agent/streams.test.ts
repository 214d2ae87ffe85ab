import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { buffer, text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { Duplex, Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { VmsanError } from "../model/errors.ts";
import { connectUnix } from "../util/socket-path.ts";
import { AgentChannel } from "./channel.ts";
import { FrameType, encodeJson } from "./frames.ts";
import { newToken } from "./handshake.ts";
import { attachStream, startStream } from "./streams.ts";
import { AgentDouble } from "./testing/double.ts";

let dir: string;
let double: AgentDouble;
let channel: AgentChannel;

/** Built-in commands of the double. */
const commands: ConstructorParameters<typeof AgentDouble>[0] = {
  hello: (stream) => {
    stream.emit(1, Buffer.from("out"));
    stream.emit(2, Buffer.from("err"));
    stream.exit(7);
  },
  cat: (stream, why) => {
    const done = Number(stream.argv[1] ?? 0);
    stream.emit(1, stream.stdin.subarray(done));
    stream.argv[1] = String(stream.stdin.length);
    if (why === "input" && stream.stdinEnded) stream.exit(0);
  },
  wait: (stream, why) => {
    if (why === "signal") stream.exit(128 + (stream.signals[0] ?? 0));
  },
  flood: (stream, why) => {
    if (why !== "start") return;
    for (let i = 0; i < 30; i += 1) stream.emit(1, Buffer.alloc(100_000, i));
    stream.exit(0);
  },
};

beforeEach(async () => {
  dir = mkdtempSync(join(tmpdir(), "vmsan-agent-"));
  double = new AgentDouble(commands);
  await double.listen(join(dir, "a.sock"));
  channel = new AgentChannel({
    open: (signal) => connectUnix(join(dir, "a.sock"), signal),
    token: newToken(),
    build: "test",
  });
});
afterEach(async () => {
  channel.close();
  await double.close();
  rmSync(dir, { recursive: true });
});

const exec = (...argv: string[]): Parameters<typeof startStream>[1] => ({
  kind: "exec",
  argv,
  stdin: true,
});

describe("channel", () => {
  test("says hello, calls, and shares one session", async () => {
    const hellos = await Promise.all([channel.ready(), channel.ready({ timeoutMs: 5000 })]);
    expect(hellos[0]).toMatchObject({ protocol: 1, build: "double" });
    await channel.request("PUT", "/v1/config", { body: { hostname: "a" } });
    expect(double.requests.at(-1)).toMatchObject({ method: "PUT", body: '{"hostname":"a"}' });
    expect(double.sessions).toBe(1);
  });

  test("throws away what an old session left in front of the echo", async () => {
    double.stale = randomBytes(100_000);
    await expect(channel.ready()).resolves.toMatchObject({ build: "double" });
  });

  test("a break is repaired by the next call", async () => {
    await channel.ready();
    double.cut();
    await channel.request("GET", "/v1/stats");
    expect(double.sessions).toBe(2);
  });

  test("another protocol version is refused, both named", async () => {
    double.protocol = 9;
    await expect(channel.ready()).rejects.toMatchObject({
      code: "ERR_AGENT_VERSION",
      message: expect.stringMatching(/protocol 9 .*double.*protocol 1 .*test/) as string,
    });
  });

  test("no agent: an error at the time limit with the cause, then no more attempts", async () => {
    await double.close();
    const open = vi.fn((signal: AbortSignal) => connectUnix(join(dir, "a.sock"), signal));
    const lonely = new AgentChannel({ open, token: newToken(), build: "test" });
    await expect(lonely.ready({ timeoutMs: 60 })).rejects.toMatchObject({
      code: "ERR_TIMEOUT_AGENT",
      why: expect.stringContaining("ENOENT") as string,
    });
    const attempts = open.mock.calls.length;
    expect(attempts).toBeGreaterThan(1);
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(open.mock.calls.length).toBe(attempts);
    await double.listen(join(dir, "a.sock"));
    await expect(lonely.ready()).resolves.toMatchObject({ build: "double" });
    lonely.close();
    await expect(lonely.ready()).rejects.toMatchObject({ code: "ERR_AGENT_CLOSED" });
  });
});

describe("streams", () => {
  test("outputs, exit code, and the exit is acknowledged", async () => {
    const stream = startStream(channel, exec("hello"));
    const [out, err, exit] = await Promise.all([
      text(stream.stdout),
      text(stream.stderr),
      stream.exit,
    ]);
    expect([out, err, exit.exitCode, stream.pid]).toEqual(["out", "err", 7, 7]);
    await expect.poll(() => double.streams.get(stream.id)?.acknowledgedExit).toBe(true);
  });

  test("no such command", async () => {
    const stream = startStream(channel, exec("nothing"));
    await expect(stream.exit).rejects.toMatchObject({ code: "ERR_AGENT_NOT_FOUND" });
    await expect(text(stream.stdout)).rejects.toMatchObject({ code: "ERR_AGENT_NOT_FOUND" });
  });

  test("input and output survive cuts at any time, once each", async () => {
    const input = randomBytes(3_000_000);
    const stream = startStream(channel, exec("cat"));
    const pieces = Array.from({ length: 300 }, (_, i) =>
      input.subarray(i * 10_000, (i + 1) * 10_000),
    );
    let sent = 0;
    const source = Readable.from(
      (async function* () {
        for (const piece of pieces) {
          sent += 1;
          if (sent % 20 === 0) double.cut();
          if (sent % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
          yield piece;
          await new Promise((resolve) => setImmediate(resolve));
        }
      })(),
    );
    const [output] = await Promise.all([buffer(stream.stdout), pipeline(source, stream.stdin)]);
    expect(output.equals(input)).toBe(true);
    expect((await stream.exit).exitCode).toBe(0);
    expect(double.sessions).toBeGreaterThan(3);
  });

  test("a START whose reply was lost is repeated without a second command", async () => {
    double.loseReplies = 3;
    const stream = startStream(channel, exec("wait"));
    await stream.started;
    stream.signal("TERM");
    expect((await stream.exit).exitCode).toBe(143);
    expect([double.starts, double.streams.size]).toEqual([4, 1]);
  });

  test("a slow reader is not overrun and gets everything", async () => {
    const stream = startStream(channel, exec("flood"));
    let size = 0;
    for await (const chunk of stream.stdout as AsyncIterable<Buffer>) {
      size += chunk.length;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(size).toBe(3_000_000);
  });

  test("callbacks get every byte before exit resolves, and their errors are the stream's", async () => {
    let size = 0;
    const stream = startStream(channel, exec("flood"), {
      onStdout: async (bytes) => {
        await new Promise((resolve) => setImmediate(resolve));
        size += bytes.length;
      },
    });
    await stream.exit;
    expect(size).toBe(3_000_000);
    const failing = startStream(channel, exec("flood"), {
      onStdout: () => {
        throw new Error("disk full");
      },
    });
    await expect(failing.exit).rejects.toThrow("disk full");
  });

  test("a reader that leaves does not hold up the command", async () => {
    const stream = startStream(channel, exec("flood"));
    stream.stdout.once("data", () => stream.stdout.destroy());
    expect((await stream.exit).exitCode).toBe(0);
  });

  test("abort kills the whole tree and says why", async () => {
    const controller = new AbortController();
    const stream = startStream(channel, exec("wait"), { signal: controller.signal });
    await stream.started;
    controller.abort(new Error("enough"));
    await expect(stream.exit).rejects.toThrow("enough");
    expect(double.streams.get(stream.id)?.signals).toEqual([9]);
  });

  test("a peer that takes nothing keeps no connection that has been left", async () => {
    const duplex = new Duplex({ read: () => undefined, write: () => undefined });
    const closed = once(duplex, "close");
    const stream = startStream({ open: async () => await Promise.resolve(duplex) }, exec("cat"));
    while (duplex.writableLength === 0) await new Promise(setImmediate);
    stream.detach();
    await closed;
    await expect(stream.exit).rejects.toMatchObject({ code: "ERR_AGENT_DETACHED" });
  });

  test("an agent that answers twice is not sent the input once more each time", async () => {
    const duplex = new Duplex({ read: () => undefined, write: () => undefined });
    const stream = startStream({ open: async () => await Promise.resolve(duplex) }, exec("cat"));
    const offsets = { stdin: "0", stdout: "0", stderr: "0" };
    duplex.push(encodeJson(FrameType.ATTACHED, offsets));
    await stream.started;
    duplex.push(encodeJson(FrameType.ATTACHED, offsets));
    await expect(stream.exit).rejects.toMatchObject({ code: "ERR_AGENT_PROTOCOL" });
    expect(duplex.destroyed).toBe(true);
  });

  test("detach, attach from an offset, gone streams", async () => {
    const first = startStream(channel, exec("cat"));
    first.stdin.write("hello ");
    await new Promise((resolve) => first.stdout.once("data", resolve));
    first.detach();
    await expect(first.exit).rejects.toMatchObject({ code: "ERR_AGENT_DETACHED" });
    const second = attachStream(channel, first.id, { from: { stdout: 3, stderr: 0 } });
    second.stdin.end("world");
    expect(await text(second.stdout)).toBe("lo world");
    const none = attachStream(channel, "00000000000000ff");
    await expect(none.exit).rejects.toMatchObject({ code: "ERR_AGENT_STREAM_NOT_FOUND" });
    expect(() => attachStream(channel, "../x")).toThrow();
  });

  test("an agent that is gone for good is an error after the patience", async () => {
    const stream = startStream(channel, exec("wait"), { reconnectMs: 50 });
    await stream.started;
    await double.close();
    await expect(stream.exit).rejects.toMatchObject({ code: "ERR_AGENT_UNREACHABLE" });
  });

  test("while the VM sleeps nobody's patience ends", async () => {
    const asleep = new VmsanError({ code: "ERR_AGENT_ASLEEP", message: "it sleeps" });
    let refusals = 0;
    const open = async (path: string, signal: AbortSignal): Promise<Duplex> => {
      if (stream.pid === undefined || refusals === 10) return await channel.open(path, signal);
      refusals += 1;
      // All of them together take longer than the patience.
      await new Promise((resolve) => setTimeout(resolve, 300));
      throw asleep;
    };
    const stream = startStream({ open }, exec("cat"), { reconnectMs: 2000 });
    await stream.started;
    double.cut();
    stream.stdin.end("awake");
    expect(await text(stream.stdout)).toBe("awake");
    expect(refusals).toBe(10);
  });
});

test("a reply that is longer than any honest one is refused, and not asked for again", async () => {
  double.replies.set("/v1/stats", JSON.stringify("x".repeat(1 << 20)));
  await expect(channel.request("GET", "/v1/stats")).rejects.toMatchObject({
    code: "ERR_AGENT_PROTOCOL",
    why: "It has more than 262144 bytes.",
  });
  expect(double.requests.filter(({ path }) => path === "/v1/stats")).toHaveLength(1);
  double.replies.delete("/v1/stats");
  expect(await channel.request("GET", "/v1/stats")).toEqual({});
  expect(double.sessions).toBe(1);
});
