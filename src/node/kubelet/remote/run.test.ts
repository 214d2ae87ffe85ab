import { expect, test } from "vitest";
import type { RunningPod } from "../../pods/running.ts";
import { runCommand } from "./run.ts";
import type { RemoteSession } from "./session.ts";

/** The terminal that a command is started with, for a client which tells these sizes. */
async function terminalFor(sizes: readonly [number, number][]): Promise<object | undefined> {
  let tty: object | undefined;
  const vm = {
    spawn: (_argv: unknown, options: { tty?: object }) => {
      ({ tty } = options);
      return { resize: () => undefined, exit: Promise.resolve({ exitCode: 0 }) };
    },
  };
  const pod = { exec: { env: [] }, guest: async () => await Promise.resolve(vm) };
  const session: RemoteSession = {
    stdin: undefined,
    gone: new AbortController().signal,
    output: async () => await Promise.resolve(),
    onResize: (take) => sizes.forEach(([rows, cols]) => take(rows, cols)),
    end: async () => await Promise.resolve(),
  };
  const wish = { stdin: true, stdout: true, stderr: false, tty: true };
  await runCommand(session, pod as unknown as RunningPod, ["sh"], wish);
  return tty;
}

test("a terminal begins with its client's size, or with one that is usual", async () => {
  expect(await terminalFor([[33, 111]])).toEqual({ rows: 33, cols: 111, term: "xterm" });
  expect(await terminalFor([])).toEqual({ rows: 24, cols: 80, term: "xterm" });
});
