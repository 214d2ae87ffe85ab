/**
 * Forced disconnects at random byte positions, on the real agent as a process: no command
 * dies by it, no byte is lost or doubled, nothing leaks in the agent.
 * VMSAN_TEST_SCALE multiplies the number of cuts (default 1: 1,000 in all).
 */
import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fakeGuest } from "../../test/exec-cases/fake-guest.ts";
import type { FakeGuest } from "../../test/exec-cases/fake-guest.ts";
import { AgentChannel } from "./channel.ts";
import { forgetStream, listStreams } from "./commands.ts";
import { download, upload } from "./copy.ts";
import { newToken } from "./handshake.ts";
import { startStream } from "./streams.ts";
import { Cutter } from "./testing/cutter.ts";
import { describeTree } from "./testing/trees.ts";

const scale = Number(process.env["VMSAN_TEST_SCALE"] ?? 1);
const CUTS = Math.ceil(250 * scale);

let guest: FakeGuest;
beforeAll(async () => {
  guest = await fakeGuest();
});
afterAll(async () => await guest.close());

/** A channel whose connections are cut. */
function cutChannel(cutter: Cutter): AgentChannel {
  guest.channel.close();
  const channel = new AgentChannel({
    open: async (signal) => cutter.wrap(await guest.vm.connect(signal)),
    token: TOKEN,
    build: "test",
  });
  return channel;
}
const TOKEN = newToken();

interface Stats {
  goroutines: number;
  fds: number;
  streams: number;
}

/** The agent's own counts, once they have settled. */
async function settle(channel: AgentChannel): Promise<Stats> {
  let last: Stats = { goroutines: Infinity, fds: Infinity, streams: Infinity };
  for (let same = 0; same < 5;) {
    const now = await channel.request<Stats>("GET", "/v1/stats");
    const stable = now.goroutines >= last.goroutines && now.fds >= last.fds;
    same = stable ? same + 1 : 0;
    last = now;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return last;
}

describe("forced disconnects", () => {
  let before: Stats;
  beforeAll(async () => {
    const calm = cutChannel(new Cutter(0, 1, 1));
    await calm.ready();
    before = await settle(calm);
    calm.close();
  });

  test(`exec: ${CUTS} cuts`, async () => {
    const cutter = new Cutter(CUTS, 60_000, 11);
    const channel = cutChannel(cutter);
    const input = randomBytes(1_000_000);
    const sum = createHash("sha256").update(input).digest("hex");
    for (let round = 0; cutter.cuts < CUTS; round += 1) {
      const out = createHash("sha256");
      let errBytes = 0;
      let marks = "";
      const stream = startStream(
        channel,
        {
          kind: "exec",
          argv: [
            "bash",
            "-c",
            'echo ran >>"$1"; head -c 300000 /dev/zero >&2; cat; exit 7',
            "bash",
            join(guest.dir, `mark-${round}`),
          ],
          stdin: true,
        },
        {
          onStdout: (bytes) => void out.update(bytes),
          onStderr: (bytes) => void (errBytes += bytes.length),
        },
      );
      stream.stdin.end(input);
      const exit = await stream.exit;
      marks = fs.readFileSync(join(guest.dir, `mark-${round}`), "utf8");
      expect([exit.exitCode, out.digest("hex"), errBytes, marks]).toEqual([
        7,
        sum,
        300_000,
        "ran\n",
      ]);
    }
    channel.close();
    expect(cutter.cuts).toBeGreaterThanOrEqual(CUTS);
  });

  test(`shell: ${CUTS} cuts`, async () => {
    const cutter = new Cutter(CUTS, 1500, 22);
    const channel = cutChannel(cutter);
    let text = "";
    let wake = (): void => undefined;
    const stream = startStream(
      channel,
      {
        kind: "exec",
        argv: ["bash", "--norc", "--noprofile", "--noediting"],
        env: ["PS1=", "HISTFILE="],
        stdin: true,
        tty: { rows: 24, cols: 80, term: "xterm" },
      },
      {
        onStdout: (bytes) => {
          text += bytes.toString("latin1");
          wake();
        },
      },
    );
    const see = async (wanted: string): Promise<void> => {
      while (!text.includes(wanted)) await new Promise<void>((resolve) => (wake = resolve));
    };
    stream.stdin.write("stty -echo; echo rea''dy\n");
    await see("ready\r\n");
    text = "";
    let expected = "";
    for (let line = 0; cutter.cuts < CUTS; line += 1) {
      stream.stdin.write(`echo line ${line} $((${line} * 7))\n`);
      expected += `line ${line} ${line * 7}\r\n`;
      if (line % 10 === 0) await see(`line ${line} ${line * 7}\r\n`);
    }
    stream.stdin.write("exit 9\n");
    expect((await stream.exit).exitCode).toBe(9);
    channel.close();
    // bash may print what it does on exit.
    expect(text.replace(/exit\r\n$/, "")).toBe(expected);
  });

  /** A tree of files, empty directories and links. */
  const makeFiles = (dir: string): void => {
    fs.mkdirSync(join(dir, "empty"), { recursive: true });
    fs.mkdirSync(join(dir, "sub"));
    for (let i = 0; i < 40; i += 1)
      fs.writeFileSync(join(dir, "sub", `f${i}`), randomBytes(i * 997));
    fs.writeFileSync(join(dir, "big"), randomBytes(1_000_000));
    fs.symlinkSync("sub/f1", join(dir, "link"));
    fs.linkSync(join(dir, "big"), join(dir, "sub/hard"));
    // Times that a double can hold: others differ by a microsecond after a copy.
    const names = fs.readdirSync(dir, { recursive: true, encoding: "utf8" });
    for (const name of [...names, "."])
      fs.lutimesSync(join(dir, name), 1_234_567_890.5, 1_234_567_890.5);
  };

  test(`upload: ${CUTS} cuts`, async () => {
    const cutter = new Cutter(CUTS, 60_000, 33);
    const channel = cutChannel(cutter);
    const source = join(guest.dir, "up");
    makeFiles(source);
    for (let round = 0; cutter.cuts < CUTS; round += 1) {
      const target = join(guest.dir, `up-${round}`);
      await upload(channel, [source], target);
      expect(describeTree(Buffer.from(target))).toEqual(describeTree(Buffer.from(source)));
      fs.rmSync(target, { recursive: true });
    }
    channel.close();
  });

  test(`download: ${CUTS} cuts`, async () => {
    const cutter = new Cutter(CUTS, 60_000, 44);
    const channel = cutChannel(cutter);
    const source = join(guest.dir, "down");
    makeFiles(source);
    for (let round = 0; cutter.cuts < CUTS; round += 1) {
      const target = join(guest.dir, `down-${round}`);
      await download(channel, source, target);
      expect(describeTree(Buffer.from(target))).toEqual(describeTree(Buffer.from(source)));
      fs.rmSync(target, { recursive: true });
    }
    channel.close();
  });

  test("nothing is left in the agent: no stream, goroutine or descriptor more than before", async () => {
    const calm = cutChannel(new Cutter(0, 1, 1));
    // Where the very last acknowledgement was cut, the agent keeps the ended stream for a
    // while; that is all it may keep.
    const kept = await listStreams(calm);
    expect(kept.filter(({ running }) => running)).toEqual([]);
    for (const { id } of kept) await forgetStream(calm, id);
    const after = await settle(calm);
    calm.close();
    expect(after.streams).toBe(0);
    expect(after.goroutines).toBeLessThanOrEqual(before.goroutines + 3);
    expect(after.fds).toBeLessThanOrEqual(before.fds + 1);
    expect(fs.readdirSync(guest.dir).filter((name) => /^\.(vmsan|tmp)/.test(name))).toEqual([]);
  });
});
