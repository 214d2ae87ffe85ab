/** Readers of events whose connections break. */
import { Readable } from "node:stream";
import { expect, test } from "vitest";
import type { Daemon } from "./daemon.ts";
import { readEvents } from "./events.ts";

/** A daemon that gives these replies in turn; where it is asked from is noted. */
function daemonOf(replies: (() => Readable)[]): { daemon: Daemon; asked: string[] } {
  const asked: string[] = [];
  const download = async (_method: string, path: string): Promise<Readable> => {
    asked.push(new URL(path, "http://vmsan").searchParams.get("since") ?? "now");
    const reply = replies.shift();
    if (reply === undefined) throw new Error("asked too often");
    return await Promise.resolve(reply());
  };
  return { daemon: { download } as unknown as Daemon, asked };
}

const lost = (): Error => Object.assign(new Error("lost"), { code: "ECONNRESET" });

/** Lines that are sent before the connection breaks, or ends. */
function reply(last: number, seqs: number[], error?: Error): () => Readable {
  return () => {
    async function* lines(): AsyncGenerator<string> {
      yield "\n";
      for (const seq of seqs) yield await Promise.resolve(`${JSON.stringify({ seq })}\n`);
      if (error !== undefined) throw error;
    }
    return Object.assign(Readable.from(lines()), { headers: { "vmsan-event": String(last) } });
  };
}

test("go on behind the last event, or where they began when they saw none", async () => {
  const refused = (): Readable => {
    throw Object.assign(new Error("nobody"), { code: "ECONNREFUSED" });
  };
  const { daemon, asked } = daemonOf([
    reply(7, [], lost()),
    refused,
    reply(7, [8, 9], lost()),
    reply(9, [10]),
  ]);
  const end = new AbortController();
  const seen: number[] = [];
  for await (const { seq } of readEvents(daemon, { signal: end.signal })) {
    seen.push(seq);
    if (seq === 10) end.abort();
  }
  expect(seen).toEqual([8, 9, 10]);
  expect(asked).toEqual(["now", "7", "7", "9"]);
});

test("who was never heard is not asked again; other failures are told", async () => {
  const never = daemonOf([
    () => {
      throw lost();
    },
  ]);
  await expect(readEvents(never.daemon, {}).next()).rejects.toThrow("lost");
  const other = daemonOf([reply(1, [2], new Error("another"))]);
  const events = readEvents(other.daemon, {});
  await events.next();
  await expect(events.next()).rejects.toThrow("another");
});
