/** Cases about standard input. */
import { createHash } from "node:crypto";
import { everyByte, noise, sh } from "./case.ts";
import type { ExecCase } from "./case.ts";

const sum = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
const TEN_MB = 10_000_000;

export const inputCases: ExecCase[] = [
  {
    name: "no input: cat ends at once",
    run: { argv: ["cat"] },
    expect: { exitCode: 0, stdoutBytes: 0 },
  },
  {
    name: "input open and never ended: a command that does not read ends all the same",
    run: { argv: sh("sleep 0.05; echo hi"), stdin: "open" },
    expect: { exitCode: 0, stdout: "hi\n" },
  },
  {
    name: "piped input comes back",
    run: { argv: ["cat"], stdin: Buffer.from("one\ntwo\n") },
    expect: { exitCode: 0, stdout: "one\ntwo\n" },
  },
  {
    name: "empty input ends at once",
    run: { argv: ["wc", "-c"], stdin: Buffer.alloc(0) },
    expect: { exitCode: 0, stdout: "0\n" },
  },
  {
    name: "10 MB of input arrive whole",
    run: { argv: ["sha256sum"], stdin: TEN_MB },
    expect: { exitCode: 0, stdout: `${sum(noise(TEN_MB))}  -\n` },
  },
  {
    name: "10 MB of input come back whole",
    run: { argv: ["cat"], stdin: TEN_MB },
    expect: { exitCode: 0, stdoutBytes: TEN_MB, stdoutSha256: sum(noise(TEN_MB)) },
  },
  {
    name: "every byte value passes",
    run: { argv: ["cat"], stdin: everyByte },
    expect: { exitCode: 0, stdout: everyByte.toString("latin1") },
  },
  {
    name: "10 MB of input that nobody reads hold nothing up",
    run: { argv: ["true"], stdin: TEN_MB },
    expect: { exitCode: 0, stdoutBytes: 0 },
  },
  {
    name: "input read in part",
    run: { argv: ["head", "-c", "5"], stdin: TEN_MB },
    expect: { exitCode: 0, stdoutBytes: 5 },
  },
  {
    name: "input closed by the command",
    run: { argv: sh("exec <&-; sleep 0.05; echo done"), stdin: TEN_MB },
    expect: { exitCode: 0, stdout: "done\n" },
  },
  {
    name: "last line of the input without a newline",
    run: {
      argv: sh('while read -r l; do echo "[$l]"; done; echo "rest=$l"'),
      stdin: Buffer.from("a\nb"),
    },
    expect: { exitCode: 0, stdout: "[a]\nrest=b\n" },
  },
  {
    name: "a dialogue, each answer after its question",
    run: {
      argv: sh('echo name?; read -r n; echo "hello $n"; echo again?; read -r n; echo "bye $n"'),
      steps: [
        { after: "name?", send: "ann\n" },
        { after: "again?", send: "bob\n" },
      ],
    },
    expect: { exitCode: 0, stdout: "name?\nhello ann\nagain?\nbye bob\n" },
  },
  {
    name: "the end of the input after a pause",
    run: {
      argv: sh("echo ready; wc -c"),
      steps: [{ after: "ready", send: "1234" }, { end: true }],
    },
    expect: { exitCode: 0, stdout: "ready\n4\n" },
  },
  {
    name: "input is no terminal",
    run: { argv: sh("test -t 0 || test -t 1 || test -t 2 || echo none"), stdin: "open" },
    expect: { exitCode: 0, stdout: "none\n" },
  },
  {
    name: "a background process that holds the input does not hold the command",
    run: { argv: sh("exec 3<&0; sleep 30 <&3 >/dev/null 2>&1 3<&- & echo started"), stdin: "open" },
    expect: { exitCode: 0, stdout: "started\n" },
  },
];
