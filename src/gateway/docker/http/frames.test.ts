import type { ServerResponse } from "node:http";
import { Writable } from "node:stream";
import { expect, test } from "vitest";
import type { OutputNumber } from "../../../agent/frames.ts";
import { FrameBatch } from "./frames.ts";
import type { Cut } from "./frames.ts";

/** What a reader gets of some pieces: `STREAM:TEXT` for each frame. */
async function framesOf(
  pieces: readonly [OutputNumber, string][],
  cut: Cut = "line",
  flushing = true,
): Promise<{ frames: string[]; raw: string }> {
  const parts: Buffer[] = [];
  const sink = new Writable({
    write: (bytes: Buffer, _encoding, done) => {
      parts.push(bytes);
      done();
    },
  });
  const batch = new FrameBatch(sink as unknown as ServerResponse, cut);
  for (const [stream, text] of pieces) {
    // The reader's memory is used again for what comes next.
    const bytes = Buffer.from(text);
    expect(await batch.add(stream, bytes)).toBe(true);
    bytes.fill("#");
    if (flushing) await batch.flush();
  }
  await batch.end();
  const all = Buffer.concat(parts);
  const frames: string[] = [];
  if (cut === "raw") return { frames, raw: all.toString() };
  for (let at = 0; at < all.length;) {
    const length = all.readUInt32BE(at + 4);
    frames.push(`${all.readUInt8(at)}:${all.toString("utf8", at + 8, at + 8 + length)}`);
    at += 8 + length;
  }
  return { frames, raw: "" };
}

test("each line is a frame, however its bytes came", async () => {
  const { frames } = await framesOf([
    [1, "one\ntwo\nth"],
    [2, "err"],
    [1, "re"],
    [1, "e\n\nlast"],
    [2, "or\n"],
  ]);
  expect(frames).toEqual(["1:one\n", "1:two\n", "1:three\n", "1:\n", "2:error\n", "1:last"]);
});

test("a line without an end waits for 16 KiB of it at most", async () => {
  const { frames } = await framesOf([
    [1, "a".repeat(10_000)],
    [1, "b".repeat(10_000)],
    [1, `c\n${"d".repeat(300_000)}\n`],
  ]);
  expect(frames.map((frame) => frame.length - 2)).toEqual([20_000, 2, 300_001]);
});

test("what a terminal printed comes as it is", async () => {
  const { raw } = await framesOf(
    [
      [1, "$ "],
      [1, "ls\r\n"],
    ],
    "raw",
  );
  expect(raw).toBe("$ ls\r\n");
});

test("short lines are frames as well, at the edges of what is gathered too", async () => {
  const lines = Array.from({ length: 60_000 }, (_, index) => "x".repeat(index % 60));
  const { frames } = await framesOf([[2, `${lines.join("\n")}\n`]], "line", false);
  expect(frames).toEqual(lines.map((line) => `2:${line}\n`));
});

test("for those that join them, many lines come in one frame, of each output in turn, and none is cut", async () => {
  const { frames } = await framesOf(
    [
      [1, "one\ntwo\nth"],
      [2, "err"],
      [1, "ree\nfo"],
      [1, "ur\n"],
      [2, "or\n"],
      [1, "five\nlast"],
    ],
    "lines",
    false,
  );
  expect(frames).toEqual(["1:one\ntwo\nthree\nfour\n", "2:error\n", "1:five\nlast"]);
});

test("and more than is gathered at once comes in several", async () => {
  const text = "0123456789\n".repeat(5_000);
  const pieces = Array.from({ length: 20 }, () => [1, text] as [OutputNumber, string]);
  const { frames } = await framesOf(pieces, "lines", false);
  expect(frames.length).toBeLessThan(10);
  expect(frames.map((frame) => frame.slice(2)).join("")).toBe(text.repeat(20));
});
