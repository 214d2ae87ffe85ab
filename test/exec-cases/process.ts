/** Cases about what a process is given and how its end is told. */
import { sh } from "./case.ts";
import type { ExecCase } from "./case.ts";

const words = [
  "",
  " ",
  "a b",
  "'",
  '"',
  "$HOME",
  "*",
  "\\",
  "\n",
  "-e",
  "--",
  "é漢🙂",
  "a=b",
  ";",
  "`id`",
];
const PIECE = "x".repeat(100_000);

/** A status or a signal by which a command ends itself. */
const ends: [string, string, number, string?][] = [
  ["status 0", "exit 0", 0],
  ["status 255", "exit 255", 255],
  ["status 256 is 0", "exit 256", 0],
  ["status -1 is 255", "exit -1", 255],
  ["SIGKILL", "kill -KILL $$", 137, "SIGKILL"],
  ["SIGTERM", "kill -TERM $$; sleep 5", 143, "SIGTERM"],
  ["SIGHUP", "kill -HUP $$; sleep 5", 129, "SIGHUP"],
  ["SIGINT", "kill -INT $$; sleep 5", 130, "SIGINT"],
  ["SIGSEGV", "kill -SEGV $$; sleep 5", 139, "SIGSEGV"],
  ["SIGABRT", "kill -ABRT $$; sleep 5", 134, "SIGABRT"],
  ["SIGUSR1", "kill -USR1 $$; sleep 5", 138, "SIGUSR1"],
];

const endCases = ends.map(([name, script, exitCode, signal]): ExecCase => ({
  name: `ends with ${name}`,
  run: { argv: sh(`ulimit -c 0; ${script}`) },
  expect: { exitCode, signal: (value) => value === signal },
}));

export const processCases: ExecCase[] = [
  ...endCases,
  {
    name: "a status of 137 without a signal is not called one",
    run: { argv: sh("exit 137") },
    expect: { exitCode: 137, signal: (value) => value === undefined },
  },
  {
    name: "no such command",
    run: { argv: ["no-such-command-here"] },
    expect: { exitCode: 127, error: "ERR_AGENT_NOT_FOUND" },
  },
  {
    name: "no such path",
    run: { argv: ["/no/such/command"] },
    expect: { exitCode: 127, error: "ERR_AGENT_NOT_FOUND" },
  },
  {
    name: "a file that cannot be executed",
    run: { argv: ["/etc/passwd"] },
    expect: { exitCode: 126, error: "ERR_AGENT_NOT_EXECUTABLE" },
  },
  {
    name: "a directory as a command",
    run: { argv: ["/etc"] },
    expect: { exitCode: 126, error: "ERR_AGENT_NOT_EXECUTABLE" },
  },
  {
    name: "a path relative to the working directory",
    run: { argv: ["bin/true"], workdir: "/usr" },
    expect: { exitCode: 0 },
  },
  {
    name: "arguments arrive word for word",
    run: { argv: ["printf", "%s\\0", ...words] },
    expect: { stdout: Buffer.from(words.map((word) => `${word}\0`).join("")).toString("latin1") },
  },
  {
    name: "10,000 arguments",
    run: { argv: sh("echo $#", ...Array.from({ length: 10_000 }, (_, i) => String(i))) },
    expect: { exitCode: 0, stdout: "10000\n" },
  },
  {
    name: "1.9 MB of arguments",
    run: {
      argv: sh('echo $#; printf %s "$@" | wc -c', ...Array.from({ length: 19 }, () => PIECE)),
    },
    expect: { exitCode: 0, stdout: "19\n1900000\n" },
  },
  {
    name: "3 MB of arguments are refused with a clear error",
    run: { argv: ["true", ...Array.from({ length: 30 }, () => PIECE)] },
    expect: { error: "ERR_AGENT_ARGUMENTS" },
  },
  {
    name: "one argument of 200 kB is more than Linux takes",
    run: { argv: ["true", "x".repeat(200_000)] },
    expect: { error: "ERR_AGENT_ARGUMENTS" },
  },
  {
    name: "environment entries arrive word for word",
    run: {
      argv: sh('printf "%s|" "$A" "$B" "$C" "$D"; test "${E-unset}" = ""'),
      env: ["A=1 2", "B=x=y", "C=a\nb", "D=é'\"$", "E="],
    },
    expect: { exitCode: 0, stdout: Buffer.from("1 2|x=y|a\nb|é'\"$|").toString("latin1") },
  },
  {
    name: "10,000 environment entries",
    run: {
      argv: sh("env | grep -c ^VMSAN_TEST_"),
      env: Array.from({ length: 10_000 }, (_, i) => `VMSAN_TEST_${i}=${i}`),
    },
    expect: { exitCode: 0, stdout: "10000\n" },
  },
  {
    name: "PATH has a default, and commands are searched in the one that is given",
    run: { argv: ["sh", "-c", "echo $PATH"], env: ["PATH=/nowhere:/usr/bin:/bin"] },
    expect: { exitCode: 0, stdout: "/nowhere:/usr/bin:/bin\n" },
  },
  {
    name: "a PATH without the command",
    run: { argv: ["sh", "-c", "true"], env: ["PATH=/nowhere"] },
    expect: { exitCode: 127, error: "ERR_AGENT_NOT_FOUND" },
  },
  {
    name: "HOME, USER, LOGNAME and SHELL are the user's",
    // The fake driver's guest, which is this host, has a home of its own.
    run: {
      argv: sh(
        'echo "$USER $LOGNAME"; test -n "$SHELL"; case $HOME in /root | */home) echo home ;; esac',
      ),
    },
    expect: { exitCode: 0, stdout: "root root\nhome\n" },
    needs: ["root"],
  },
  {
    name: "HOME that is given wins",
    run: { argv: sh('echo "$HOME"'), env: ["HOME=/tmp"] },
    expect: { stdout: "/tmp\n" },
  },
  {
    name: "working directory",
    run: { argv: ["pwd"], workdir: "/usr/share" },
    expect: { exitCode: 0, stdout: "/usr/share\n" },
  },
  {
    name: "a working directory that is not there",
    run: { argv: ["pwd"], workdir: "/no/such/dir" },
    expect: { error: "ERR_AGENT_WORKDIR" },
  },
  {
    name: "a numeric user that nobody knows",
    run: { argv: sh("id -u; id -g; id -G"), user: "12345:23456" },
    expect: { exitCode: 0, stdout: "12345\n23456\n23456\n" },
    needs: ["root"],
  },
  {
    name: "a user by name",
    run: { argv: sh('id -un; echo "$USER"'), user: "nobody" },
    expect: { exitCode: 0, stdout: "nobody\nnobody\n" },
    needs: ["root", "passwd-nobody"],
  },
  {
    name: "a user that does not exist",
    run: { argv: ["id"], user: "no-such-user" },
    expect: { error: "ERR_AGENT_USER" },
  },
  {
    name: "no descriptor but the three",
    run: { argv: ["ls", "/proc/self/fd"], stdin: "open" },
    // 3 is the directory that ls reads.
    expect: { stdout: "0\n1\n2\n3\n" },
  },
  {
    name: "no signal is blocked or ignored",
    run: { argv: ["grep", "-E", "^Sig(Blk|Ign):", "/proc/self/status"] },
    expect: { stdout: /^SigBlk:\s0+\nSigIgn:\s0+\n$/ },
  },
  {
    name: "a session of its own without a terminal",
    run: { argv: sh("read -r _ _ _ _ _ sid tty _ </proc/$$/stat; echo $((sid == $$)) $tty") },
    expect: { stdout: "1 0\n" },
    unlikeBash: "a child of this test shares its session",
  },
  { name: "umask 022", run: { argv: sh("umask") }, expect: { stdout: "0022\n" } },
  {
    name: "orphans are adopted and reaped",
    run: {
      argv: sh(
        "for i in $(seq 50); do (true &); done; sleep 0.3; n=0; for s in /proc/[0-9]*/stat; do " +
          "read -r line <$s || continue; set -- ${line##*) }; " +
          '[ "$1 $2" = "Z $PPID" ] && n=$((n+1)); done 2>/dev/null; echo $n',
      ),
    },
    expect: { exitCode: 0, stdout: "0\n" },
  },
  {
    name: "a zombie of a process that goes on is no business of ours",
    run: { argv: sh("sleep 0 & exec sleep 0.1") },
    expect: { exitCode: 0 },
  },
];
