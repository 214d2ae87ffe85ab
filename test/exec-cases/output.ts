/** Cases about standard output and standard error. */
import { createHash } from "node:crypto";
import { everyByte, sh } from "./case.ts";
import type { ExecCase } from "./case.ts";

/** SHA-256 of so many zero bytes. */
function zeros(length: number): string {
  const hash = createHash("sha256");
  const block = Buffer.alloc(1 << 20);
  for (let left = length; left > 0; left -= block.length) {
    hash.update(left < block.length ? block.subarray(0, left) : block);
  }
  return hash.digest("hex");
}

const octal = [...everyByte].map((byte) => `\\${byte.toString(8).padStart(3, "0")}`).join("");

/** @param big bytes of the largest output: 1 GB unless the guest is emulated */
export function outputCases(big: number): ExecCase[] {
  const tenth = Math.ceil(big / 10);
  return [
    {
      name: "each output on its own",
      run: { argv: sh("echo out; echo err >&2") },
      expect: { exitCode: 0, stdout: "out\n", stderr: "err\n" },
    },
    {
      name: "no output at all",
      run: { argv: ["true"] },
      expect: { stdoutBytes: 0, stderrBytes: 0 },
    },
    {
      name: "no newline at the end",
      run: { argv: ["printf", "abc"] },
      expect: { exitCode: 0, stdout: "abc" },
    },
    {
      name: "NUL bytes",
      run: { argv: ["printf", "a\\0b\\0"] },
      expect: { stdout: "a\0b\0" },
    },
    {
      name: "every byte value on both outputs",
      run: { argv: sh('printf "$1"; printf "$1" >&2', octal) },
      expect: { stdout: everyByte.toString("latin1"), stderr: everyByte.toString("latin1") },
    },
    {
      name: "invalid UTF-8 is not mended",
      run: { argv: ["printf", "\\377\\300\\200\\355\\240\\200"] },
      expect: { stdout: "\u00ff\u00c0\u0080\u00ed\u00a0\u0080" },
    },
    {
      name: "carriage returns stay",
      run: { argv: ["printf", "a\\r\\nb\\r"] },
      expect: { stdout: "a\r\nb\r" },
    },
    {
      name: `${big} bytes through standard output with the right sum`,
      run: { argv: ["head", "-c", String(big), "/dev/zero"] },
      expect: { exitCode: 0, stdoutBytes: big, stdoutSha256: zeros(big) },
    },
    {
      name: "both outputs at full speed",
      run: { argv: sh('head -c "$1" /dev/zero & head -c "$1" /dev/zero >&2; wait', String(tenth)) },
      expect: {
        exitCode: 0,
        stdoutBytes: tenth,
        stderrBytes: tenth,
        stdoutSha256: zeros(tenth),
        stderrSha256: zeros(tenth),
      },
    },
    {
      name: "much on standard error alone",
      run: { argv: sh('head -c "$1" /dev/zero >&2', String(tenth)) },
      expect: { exitCode: 0, stdoutBytes: 0, stderrBytes: tenth, stderrSha256: zeros(tenth) },
    },
    {
      name: "a line of 5 MB",
      run: { argv: sh("head -c 5000000 /dev/zero | tr '\\0' x; echo") },
      expect: { exitCode: 0, stdoutBytes: 5_000_001 },
    },
    {
      name: "a thousand tiny writes keep their order",
      run: { argv: sh("for ((i=0;i<1000;i++)); do echo $i; done") },
      expect: { exitCode: 0, stdout: Array.from({ length: 1000 }, (_, i) => `${i}\n`).join("") },
    },
    {
      name: "writing to a closed output fails in the command, not for us",
      run: { argv: sh("exec 1>&-; echo x; echo $? >&2; exit 4") },
      expect: { exitCode: 4, stdoutBytes: 0, stderr: /\n1\n$/ },
    },
    {
      name: "both outputs closed early, the status still comes",
      run: { argv: sh("exec 1>&- 2>&-; sleep 0.1; exit 3") },
      expect: { exitCode: 3, stdoutBytes: 0, stderrBytes: 0 },
    },
    {
      name: "all three descriptors closed early",
      run: { argv: sh("exec 0<&- 1>&- 2>&-; sleep 0.05; exit 9"), stdin: 100_000 },
      expect: { exitCode: 9 },
    },
    {
      name: "output that a child writes after its parent's exit",
      // The parent is there until it has been waited for: then the child has the 250 ms that are given to it.
      run: { argv: sh("(while kill -0 $$ 2>/dev/null; do :; done; echo late) & echo early") },
      expect: { exitCode: 0, stdout: "early\nlate\n" },
    },
    {
      name: "a daemon left behind does not hold the command",
      run: { argv: sh("sleep 30 & echo started") },
      expect: { exitCode: 0, stdout: "started\n" },
      unlikeBash: "ssh hangs until the daemon closes its output; we wait 250 ms",
    },
    {
      name: "double fork with a session of its own",
      run: { argv: sh("(setsid sh -c 'sleep 30' &) ; echo started; exit 5") },
      expect: { exitCode: 5, stdout: "started\n" },
      unlikeBash: "as above",
    },
    {
      name: "the last bytes before a kill arrive",
      run: { argv: sh("head -c 1000000 /dev/zero; printf end; kill -9 $$") },
      expect: { exitCode: 137, stdoutBytes: 1_000_003 },
    },
    {
      name: "a pipe whose reader leaves: SIGPIPE as usual",
      run: { argv: sh('yes | head -n 1; echo "${PIPESTATUS[0]}"') },
      expect: { exitCode: 0, stdout: "y\n141\n" },
    },
    {
      name: "our reader leaves: SIGPIPE for the command, as over ssh",
      run: { argv: ["yes"], steps: [{ after: "y\n", close: "stdout" }] },
      expect: { exitCode: 141, signal: "SIGPIPE" },
    },
    {
      name: "our reader of one output leaves, the other goes on",
      run: {
        argv: sh("yes; echo ${PIPESTATUS[0]} >&2; seq 1 100000 >&2; exit 3"),
        steps: [{ after: "y\n", close: "stdout" }],
      },
      expect: { exitCode: 3, stderr: /^141\n1\n/, stderrBytes: 588_899 },
    },
    {
      name: "output as a pipe of a pipe",
      run: { argv: sh("seq 1 100000 | sort -rn | tail -n 1") },
      expect: { exitCode: 0, stdout: "1\n" },
    },
  ];
}
