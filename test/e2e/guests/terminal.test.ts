/** connect and exec -it in a real terminal emulator: tmux, its keys and its screen. */
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { run } from "../../../src/util/run.ts";
import { which } from "../../../src/util/which.ts";
import { booted, installation, temporary } from "../../fixtures/ladder.ts";
import { vmsanBin, vmsanJson, vmsanOk } from "../support.ts";

const tmux = await which("tmux");
if (tmux === undefined) console.log("skipped: terminal tests: tmux is not installed");

const socket = `vmsan-test-${process.pid}`;
const here = installation("base");
const work = temporary();

/** A call of tmux, on a server of this test's own. */
function call(...args: string[]): string {
  return execFileSync("tmux", ["-L", socket, "-f", "/dev/null", ...args], {
    encoding: "utf8",
    env: { ...process.env, VMSAN_DIR: here.dir, TERM: "xterm-256color" },
  });
}

/** One window with a shell of this host in it. */
class Window {
  private readonly name: string;

  constructor(name: string, cols = 100, rows = 30) {
    this.name = name;
    const shell = "env PS1=host% bash --norc --noprofile";
    call("new-session", "-d", "-s", name, "-x", String(cols), "-y", String(rows), shell);
    call("set-option", "-t", name, "status", "off");
  }

  /** Type text, then Enter. */
  line(text: string): void {
    this.type(text);
    this.keys("Enter");
  }

  type(text: string): void {
    call("send-keys", "-t", this.name, "-l", text);
  }

  /** Press keys by tmux's names: `C-c`, `Enter` … */
  keys(...keys: string[]): void {
    call("send-keys", "-t", this.name, ...keys);
  }

  screen(): string {
    return call("capture-pane", "-p", "-t", this.name).trimEnd();
  }

  /** Wait until the screen looks so. */
  async until(wanted: RegExp): Promise<string> {
    await expect.poll(() => this.screen(), { timeout: 40_000, interval: 100 }).toMatch(wanted);
    return this.screen();
  }

  resize(cols: number, rows: number): void {
    call("resize-window", "-t", this.name, "-x", String(cols), "-y", String(rows));
  }

  close(): void {
    call("kill-session", "-t", this.name);
  }
}

describe.skipIf(tmux === undefined)("a terminal (skipped without tmux)", () => {
  booted(here, { memory: 256, name: "term" });
  // Exit status 1: no server is left because every window has been closed.
  afterAll(() => run("tmux", ["-L", socket, "kill-server"]));

  test("connect: a login shell with this terminal's size, colours and keys", async () => {
    const window = new Window("keys");
    window.line(`${vmsanBin} connect term -s keys; echo status=$?`);
    await window.until(/\$$/);
    window.line("PS1='guest% '; clear; stty size; tput colors; tty; whoami");
    await window.until(/^30 100\n256\n\/dev\/pts\/\d+\nubuntu\nguest%$/);

    window.line("clear; echo run$((1))ning; sleep 1000");
    await window.until(/^run1ning$/);
    window.keys("C-c");
    // The kernel of the guest sends the signal first and prints ^C then: bash may be faster.
    await window.until(/\^C\n?guest%$/);

    window.line("clear; echo run$((1))ning; sleep 1000");
    await window.until(/^run1ning$/);
    window.keys("C-z");
    await window.until(/Stopped[^]*\nguest%$/);
    window.line("kill -9 %1; wait; clear; echo re$((1))ady; cat");
    await window.until(/^re1ady$/);
    window.line("héllo");
    await window.until(/héllo\nhéllo$/);
    window.keys("C-d");
    await window.until(/héllo\nguest%$/);

    window.resize(77, 22);
    window.line("clear; stty size");
    await window.until(/^22 77\nguest%$/);
    window.line("exit 7");
    await window.until(/status=7/);
    // This side's terminal is as it was.
    window.line("clear; stty -a | tr ' ' '\\n' | grep -xE 'icanon;?|echo;?|isig;?' | sort");
    await window.until(/^echo\nicanon\nisig\nhost%$/);
    window.close();
  });

  test("full-screen programs: less, top, vi", async () => {
    await vmsanOk(["upload", "term", "/bin/busybox", "-d", "/tmp/busybox"], here);
    const window = new Window("full", 80, 24);
    window.line(`${vmsanBin} exec -it term bash --norc; echo status=$?`);
    await window.until(/\$$/m);
    window.line("PS1='guest% '; clear; seq 1 500 | less");
    await window.until(/^1\n2\n[^]*\n23\n:$/);
    window.keys("Space");
    await window.until(/^24\n[^]*\n46\n:$/);
    window.line("/^400");
    await window.until(/^400\n/);
    window.keys("q");
    await window.until(/guest%$/);

    window.line("top -d 1");
    await window.until(/^top - [^]*PID USER/);
    window.keys("q");
    await window.until(/guest%$/);

    window.line("clear; /tmp/busybox vi /tmp/text");
    await window.until(/~\n[^]*\/tmp\/text/);
    window.type("ifirst line");
    window.keys("Enter");
    window.type("second");
    window.keys("Escape");
    await window.until(/^first line\nsecond\n~[^]*\n- \/tmp\/text/);
    window.type("k0x");
    await window.until(/^irst line\nsecond\n~/);
    // A new size is told to the program as well.
    window.resize(60, 12);
    await window.until(/^irst line\nsecond\n(~\n){9}- /);
    window.line(":wq");
    await window.until(/guest%$/);
    window.line("clear; sed -n 2p /tmp/text; wc -l </tmp/text");
    await window.until(/^second\n2\nguest%$/);
    window.line("exit 3");
    await window.until(/status=3/);
    window.close();
  });

  test("leaving with ctrl-p ctrl-q, returning with what was printed, and two at once", async () => {
    const first = new Window("first");
    first.line(`${vmsanBin} connect term -s shared; echo status=$?`);
    await first.until(/\$$/);
    first.line("PS1='guest% '; clear; seq 1 5000; echo mark-$((1 + 1))");
    await first.until(/\n5000\nmark-2\nguest%$/);
    // Without a job of the shell's: its "Done" would come before some later prompt.
    first.line("(sleep 1; echo while-$((1 + 2))-away) & disown");
    first.keys("C-p", "C-q");
    await first.until(/detached from shared[^]*status=0/);

    first.line(`clear; ${vmsanBin} connect term -s shared; echo status=$?`);
    await first.until(/mark-2\nguest%[^]*while-3-away/);
    // All of it, not only what fits the screen.
    expect(call("capture-pane", "-p", "-S", "-", "-t", "first")).toMatch(/\n4321\n/);

    const second = new Window("second");
    second.line(`${vmsanBin} connect term -s shared; echo status=$?`);
    await second.until(/mark-2/);
    second.line("clear; echo from-second");
    await first.until(/\nfrom-second\n|^from-second\n/);
    first.line("clear; echo from-first");
    await second.until(/^from-first\nguest%$/);
    second.keys("C-p", "C-q");
    await second.until(/status=0/);
    first.line("exit 5");
    await first.until(/status=5/);
    first.close();
    second.close();
  });

  test("1 MB pasted arrives whole", async () => {
    const paste = randomBytes(750_000).toString("base64");
    const file = join(work.path, "paste");
    writeFileSync(file, paste);
    const sum = createHash("sha256").update(paste).digest("hex");
    const window = new Window("paste", 120, 30);
    const command = `stty raw -echo; echo re$((1))ady; head -c ${paste.length} | sha256sum`;
    window.line(`${vmsanBin} exec -it term sh -c '${command}'; echo status=$?`);
    await window.until(/re1ady/);
    call("load-buffer", file);
    call("paste-buffer", "-r", "-t", "paste");
    await window.until(/status=0/);
    expect(window.screen()).toContain(sum);
    window.close();
  });

  test("a daemon that is killed does not end a shell", async () => {
    const window = new Window("killed");
    window.line(`${vmsanBin} connect term -s killed; echo status=$?`);
    await window.until(/\$$/);
    window.line("PS1='guest% '; clear; echo $$");
    const before = await window.until(/^\d+\nguest%$/);
    const { pid } = await vmsanJson<{ pid: number }>(["daemon", "status"], here);
    process.kill(pid, "SIGKILL");
    window.line("echo $$ again");
    const own = before.split("\n")[0] ?? "";
    await window.until(new RegExp(`\\n${own} again\\nguest%$`));
    window.line("exit");
    await window.until(/status=0/);
    window.close();
  });
});
