/** Detached commands, several clients and re-attachment, on the real agent as a process. */
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fakeGuest } from "../../test/exec-cases/fake-guest.ts";
import type { FakeGuest } from "../../test/exec-cases/fake-guest.ts";
import { forgetStream, listStreams, signalStream, streamInfo, waitStream } from "./commands.ts";
import { attachStream, startStream } from "./streams.ts";
import type { AttachOptions, Gap, GuestStream } from "./streams.ts";

let guest: FakeGuest;
beforeAll(async () => {
  guest = await fakeGuest();
});
afterAll(async () => await guest.close());

/** A stream whose standard output is collected, and a way to wait for text in it. */
class Watched {
  text = "";
  gaps: Gap[] = [];
  private wake = (): void => undefined;

  readonly options: AttachOptions = {
    onStdout: (bytes) => {
      this.text += bytes.toString("latin1");
      this.wake();
    },
    onGap: (gap) => this.gaps.push(gap),
  };

  async see(wanted: string): Promise<void> {
    while (!this.text.includes(wanted)) {
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
    }
  }
}

const sh = (script: string, more: object = {}): Parameters<typeof startStream>[1] => ({
  kind: "exec",
  argv: ["bash", "-c", script],
  ...more,
});

/** Start and leave. */
async function startDetached(script: string, more: object = {}): Promise<string> {
  const stream = startStream(guest.channel, sh(script, { detach: true, ...more }));
  await stream.started;
  stream.detach();
  return stream.id;
}

describe("detached commands", () => {
  test("are listed, waited for, shown and forgotten", async () => {
    const id = await startDetached("echo out; echo err >&2; exit 3", { label: "job" });
    expect(await waitStream(guest.channel, id)).toMatchObject({
      id,
      label: "job",
      detach: true,
      running: false,
      exit: { exitCode: 3 },
      stdout: { start: 0, end: 4 },
    });
    for (let i = 0; i < 2; i += 1) {
      const logs = attachStream(guest.channel, id, { observe: true });
      expect(await Promise.all([text(logs.stdout), text(logs.stderr)])).toEqual(["out\n", "err\n"]);
      expect((await logs.exit).exitCode).toBe(3);
    }
    expect((await listStreams(guest.channel)).map((info) => info.id)).toContain(id);
    await forgetStream(guest.channel, id);
    expect((await listStreams(guest.channel)).map((info) => info.id)).not.toContain(id);
    await expect(streamInfo(guest.channel, id)).rejects.toHaveProperty("code");
  });

  test("are killed by a call, whole trees of them", async () => {
    const id = await startDetached("sleep 1000 & sleep 1000");
    await expect(forgetStream(guest.channel, id)).rejects.toHaveProperty("code");
    await signalStream(guest.channel, id, "kill", true);
    expect((await waitStream(guest.channel, id)).exit).toMatchObject({
      exitCode: 137,
      signal: "SIGKILL",
    });
    await forgetStream(guest.channel, id);
  });

  test("keep the end of their output; what was dropped is told", async () => {
    const id = await startDetached("head -c 3000000 /dev/zero; echo end");
    await waitStream(guest.channel, id);
    const watched = new Watched();
    const logs = attachStream(guest.channel, id, { ...watched.options, observe: true });
    await logs.exit;
    expect(watched.text.endsWith("end\n")).toBe(true);
    const lost = watched.gaps.reduce((sum, { from, to }) => sum + to - from, 0);
    expect(lost).toBeGreaterThan(1_000_000);
    expect(lost + watched.text.length).toBe(3_000_004);
    const tail = new Watched();
    await attachStream(guest.channel, id, { ...tail.options, observe: true, tail: 3 }).exit;
    expect([tail.text, tail.gaps]).toEqual(["nd\n", []]);
    await forgetStream(guest.channel, id);
  });

  test("a bigger ring keeps more", async () => {
    const id = await startDetached("head -c 3000000 /dev/zero", { ringBytes: 4 << 20 });
    await waitStream(guest.channel, id);
    const watched = new Watched();
    await attachStream(guest.channel, id, { ...watched.options, observe: true }).exit;
    expect([watched.text.length, watched.gaps]).toEqual([3_000_000, []]);
    await forgetStream(guest.channel, id);
  });
});

describe("several clients", () => {
  const tty = { rows: 24, cols: 80, term: "xterm" };
  const shell = (watched: Watched): GuestStream =>
    startStream(
      guest.channel,
      {
        kind: "exec",
        argv: ["bash", "--norc", "--noprofile", "--noediting"],
        env: ["PS1=", "HISTFILE="],
        stdin: true,
        tty,
        label: "shell:main",
      },
      watched.options,
    );

  test("of one terminal: both type, both see everything", async () => {
    const [one, two] = [new Watched(), new Watched()];
    const first = shell(one);
    first.stdin.write("stty -echo; echo o''ne\n");
    await one.see("one\r\n");
    const second = attachStream(guest.channel, first.id, two.options);
    await second.started;
    await two.see("one\r\n");
    second.stdin.write("echo t''wo\n");
    await one.see("two\r\n");
    await two.see("two\r\n");
    first.stdin.write("echo thr''ee\n");
    await two.see("three\r\n");
    second.stdin.write("exit 4\n");
    expect([(await first.exit).exitCode, (await second.exit).exitCode]).toEqual([4, 4]);
  });

  test("leave a terminal and come back to what it showed meanwhile", async () => {
    const one = new Watched();
    const first = shell(one);
    first.stdin.write("stty -echo; echo rea''dy; (sleep 0.1; echo mean''while) &\n");
    await one.see("ready");
    first.detach();
    await expect(first.exit).rejects.toMatchObject({ code: "ERR_AGENT_DETACHED" });
    const found = (await listStreams(guest.channel)).find(
      ({ label, running }) => running && label === "shell:main",
    );
    const two = new Watched();
    const again = attachStream(guest.channel, found?.id ?? "", two.options);
    await two.see("meanwhile");
    expect(two.text).toContain("ready");
    again.stdin.write("exit\n");
    expect((await again.exit).exitCode).toBe(0);
  });

  test("of one pipe: the later one takes it over", async () => {
    const one = new Watched();
    const first = startStream(guest.channel, sh("cat", { stdin: true }), one.options);
    first.stdin.write("first ");
    await one.see("first ");
    const two = new Watched();
    const second = attachStream(guest.channel, first.id, {
      ...two.options,
      from: { stdout: 6, stderr: 0 },
    });
    await expect(first.exit).rejects.toMatchObject({ code: "ERR_AGENT_TAKEN_OVER" });
    second.stdin.end("second");
    expect((await second.exit).exitCode).toBe(0);
    expect(two.text).toBe("second");
  });

  test("an observer changes nothing", async () => {
    const one = new Watched();
    const first = startStream(guest.channel, sh("cat", { stdin: true }), one.options);
    first.stdin.write("a");
    await one.see("a");
    const two = new Watched();
    const observer = attachStream(guest.channel, first.id, { ...two.options, observe: true });
    await two.see("a");
    first.stdin.end("b");
    expect([(await first.exit).exitCode, (await observer.exit).exitCode]).toEqual([0, 0]);
    expect([one.text, two.text]).toEqual(["ab", "ab"]);
  });

  test("a login shell is found when no command is given", async () => {
    const watched = new Watched();
    const stream = startStream(
      guest.channel,
      // Not with what this host's user has in the profile: it may take any time.
      { kind: "exec", argv: [], stdin: true, env: [`HOME=${guest.dir}`] },
      watched.options,
    );
    stream.stdin.end("echo $0\n");
    expect((await stream.exit).exitCode).toBe(0);
    expect(watched.text).toMatch(/sh\n$/);
  });
});
