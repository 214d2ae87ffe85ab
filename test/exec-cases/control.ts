/** Cases about signals, time limits and terminals. */
import { createHash } from "node:crypto";
import { noise, sh } from "./case.ts";
import type { ExecCase } from "./case.ts";

const TTY = { rows: 24, cols: 80 };
const paste = Buffer.from(noise(750_000).toString("base64"));
const pasteSum = createHash("sha256").update(paste).digest("hex");

export const controlCases: ExecCase[] = [
  {
    name: "a signal that the command handles",
    run: {
      argv: sh("trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.02; done"),
      steps: [{ after: "ready", signal: ["SIGTERM", false] }],
    },
    expect: { exitCode: 5, stdout: "ready\ngot\n" },
  },
  {
    name: "an interrupt ends the command",
    run: {
      argv: ["sh", "-c", "echo ready; exec sleep 100"],
      steps: [{ after: "ready", signal: ["SIGINT", true] }],
    },
    expect: { exitCode: 130, signal: "SIGINT" },
  },
  {
    name: "a signal that the command survives",
    run: {
      // No `read` while the signal comes: bash may find it too late and go on waiting.
      argv: sh(
        "trap 'echo hup; n=1' HUP; echo ready; until [ -n \"$n\" ]; do sleep 0.02; done; read -r x; echo $x",
      ),
      steps: [
        { after: "ready", signal: ["SIGHUP", false] },
        { after: "hup", send: "b\n" },
      ],
    },
    expect: { exitCode: 0, stdout: "ready\nhup\nb\n" },
  },
  {
    name: "stop and continue",
    run: {
      argv: sh("echo ready; read -r x; echo $x"),
      steps: [
        { after: "ready", signal: ["SIGSTOP", true] },
        { send: "later\n", signal: ["SIGCONT", true] },
      ],
    },
    expect: { exitCode: 0, stdout: "ready\nlater\n" },
  },
  {
    name: "KILL of the tree reaches grandchildren",
    run: {
      argv: sh("sleep 98761 & sleep 98761 & echo ready; wait"),
      steps: [{ after: "ready", signal: ["SIGKILL", true] }],
    },
    expect: { exitCode: 137, signal: "SIGKILL" },
  },
  {
    name: "… and none of them is left",
    run: { argv: sh("grep -lsz '9876[1]' /proc/[0-9]*/cmdline | grep -v /$$/ | wc -l") },
    expect: { stdout: "0\n" },
  },
  {
    name: "time limit",
    run: { argv: ["sleep", "100"], timeoutMs: 200 },
    expect: { exitCode: 124, timedOut: true },
    unlikeBash: "bash has no time limit",
  },
  {
    name: "time limit ends the whole tree",
    run: { argv: sh("sleep 98762 & (sleep 98762 & sleep 98762); wait"), timeoutMs: 200 },
    expect: { exitCode: 124, timedOut: true },
    unlikeBash: "bash has no time limit",
  },
  {
    name: "… and none of it is left",
    run: { argv: sh("grep -lsz '9876[2]' /proc/[0-9]*/cmdline | grep -v /$$/ | wc -l") },
    expect: { stdout: "0\n" },
  },
  {
    name: "time limit: who ignores TERM gets KILL after the grace time",
    run: {
      argv: sh("trap '' TERM; echo ready; while :; do sleep 0.05; done"),
      // Long enough for a shell to have set its trap on a busy, emulated machine.
      timeoutMs: 3_000,
      graceMs: 200,
    },
    expect: { exitCode: 124, timedOut: true, stdout: "ready\n" },
    unlikeBash: "bash has no time limit",
  },
  {
    name: "time limit: last words on TERM arrive",
    run: {
      argv: sh("trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done"),
      timeoutMs: 3_000,
    },
    expect: { exitCode: 124, timedOut: true, stdout: "bye\n" },
    unlikeBash: "bash has no time limit",
  },
  {
    name: "time limit reaches processes with a session of their own",
    run: { argv: sh("setsid sleep 98763 & setsid setsid sleep 98763 & wait"), timeoutMs: 300 },
    expect: { exitCode: 124, timedOut: true },
    needs: ["cgroup"],
    unlikeBash: "bash has no time limit",
  },
  {
    name: "… and none is left",
    run: { argv: sh("grep -lsz '9876[3]' /proc/[0-9]*/cmdline | grep -v /$$/ | wc -l") },
    expect: { stdout: "0\n" },
    needs: ["cgroup"],
  },
  {
    name: "a time limit that is not reached says nothing",
    run: { argv: sh("echo fine"), timeoutMs: 60_000 },
    expect: { exitCode: 0, timedOut: false, stdout: "fine\n" },
  },
  {
    name: "terminal: all three descriptors, and errors come on standard output",
    run: { argv: sh("test -t 0 && test -t 1 && test -t 2 && echo err >&2"), tty: TTY },
    expect: { exitCode: 0, stdout: "err\r\n", stderrBytes: 0 },
  },
  {
    name: "terminal: size and TERM",
    run: { argv: sh("stty size; echo $TERM"), tty: { rows: 50, cols: 132 } },
    expect: { stdout: "50 132\r\nxterm-256color\r\n" },
  },
  {
    name: "terminal: its name, and it controls the session",
    run: { argv: sh("tty; echo direct >/dev/tty"), tty: TTY },
    expect: { exitCode: 0, stdout: /^\/dev\/pts\/\d+\r\ndirect\r\n$/ },
  },
  {
    name: "terminal: ^C interrupts",
    run: {
      argv: sh("echo ready; sleep 100; echo not here"),
      tty: TTY,
      steps: [{ after: "ready", send: "\x03" }],
    },
    expect: { exitCode: 130, stdout: (value) => !value.includes("not here") },
  },
  {
    name: "terminal: ^D ends the input",
    run: { argv: ["cat"], tty: TTY, steps: [{ send: "line\n\x04" }] },
    expect: { exitCode: 0, stdout: "line\r\nline\r\n" },
  },
  {
    name: "terminal: ^Z stops the job of an interactive shell, fg goes on",
    run: {
      argv: ["bash", "--norc", "--noprofile", "-i"],
      tty: TTY,
      env: ["PS1=> ", "HISTFILE="],
      steps: [
        { after: "> ", send: "sh -c 'echo up; read x; echo \"<$x>\"'\n" },
        { after: "up\r\n", send: "\x1a" },
        { after: "Stopped", send: "fg\n" },
        { after: "fg\r\n", send: "value\n" },
        { after: "<value>", send: "exit 6\n" },
      ],
    },
    expect: { exitCode: 6 },
  },
  {
    name: "terminal: a new size is told",
    run: {
      // Linux sends SIGWINCH an instant before the new size can be read (pty_resize), so the one
      // who is told looks until it is there, and ends by itself: `read` with a limit can lose a line.
      argv: sh(
        `trap 'until [ "$(stty size)" = "33 111" ]; do sleep 0.01; done; stty size; exit 6' WINCH; echo ready; while :; do sleep 0.02; done`,
      ),
      tty: TTY,
      steps: [{ after: "ready", resize: [33, 111] }],
    },
    expect: { exitCode: 6, stdout: /33 111/ },
  },
  {
    name: "terminal: 1 MB pasted into a raw terminal arrives whole",
    run: {
      argv: sh(`stty raw -echo; echo ready; head -c ${paste.length} | sha256sum`),
      tty: TTY,
      steps: [{ after: "ready", send: paste }],
    },
    expect: { exitCode: 0, stdout: (value) => value.includes(pasteSum) },
  },
  {
    name: "terminal: escape sequences and colours pass",
    run: { argv: ["printf", "\\033[38;5;196mred\\033[0m"], tty: TTY },
    expect: { stdout: "\x1b[38;5;196mred\x1b[0m" },
  },
  {
    name: "terminal: much output",
    run: { argv: sh("seq 1 100000"), tty: TTY },
    expect: { exitCode: 0, stdoutBytes: 688_895 },
  },
  {
    name: "terminal: the end of the shell hangs up its children",
    run: { argv: sh("sleep 98764 & disown -a; echo started"), tty: TTY },
    expect: { exitCode: 0, stdout: "started\r\n" },
  },
];
