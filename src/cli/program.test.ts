import { execFileSync } from "node:child_process";
import type { Command } from "commander";
import { expect, test } from "vitest";
import { clusterOf } from "./cluster-flags.ts";
import { createProgram } from "./program.ts";
import { EXAMPLES } from "./words/examples.ts";
import { COMMANDS, OPTIONS } from "./words/habits.ts";
import { hintFor } from "./words/hints.ts";

test("every name and alias of a command loads that command and no other", async () => {
  const whole = await createProgram();
  for (const command of whole.commands) {
    if (command.name() === "completion") continue; // describes all of them
    for (const name of [command.name(), ...command.aliases()]) {
      const { commands } = await createProgram(["--json", name, "--help"]);
      expect([name, ...commands.map((one) => one.name())]).toEqual([name, command.name()]);
    }
  }
});

test.each([
  [[]],
  [["--help"]],
  [["help", "run"]],
  [["rnu"]],
  [["--json"]],
  [["completion", "bash"]],
])("%j loads all commands", async (args) => {
  const whole = await createProgram();
  const names = (await createProgram(args)).commands.map((command) => command.name());
  expect(names).toEqual(whole.commands.map((command) => command.name()));
  expect(names.length).toBeGreaterThan(20);
});

/** The command that words lead to, and its arguments; nothing is done. */
async function parsedBy(words: readonly string[]): Promise<Command> {
  const program = await createProgram(words);
  let ran: Command | undefined;
  const catchAction = (command: Command): void => {
    command.exitOverride().configureOutput({ writeErr: () => undefined });
    command.action(() => void (ran = command));
    for (const child of command.commands) catchAction(child);
  };
  catchAction(program);
  await program.parseAsync(words, { from: "user" });
  if (ran === undefined) throw new Error("nothing ran");
  return ran;
}

test("every example of the help is a command line of that command, as a shell reads it", async () => {
  const examples = Object.entries(EXAMPLES).flatMap(([path, lines]) =>
    lines.map((line) => ({ path, line })),
  );
  for (const { path, line } of examples) {
    const read = execFileSync("sh", ["-c", `printf '%s\\0' ${line}`], { encoding: "utf8" });
    const words = read.split("\0").slice(0, -1);
    const names: string[] = [];
    let at = await parsedBy(words);
    for (; at.parent !== null; at = at.parent) names.unshift(at.name());
    expect({ line, path: names.join(" ") }).toEqual({ line, path });
  }
});

test("help shows examples, also of commands below others", async () => {
  for (const words of [
    ["network", "--help"],
    ["image", "pull", "-h"],
  ]) {
    let text = "";
    const program = await createProgram(words);
    const keep = (command: Command): void => {
      command.exitOverride().configureOutput({ writeOut: (said) => void (text += said) });
      for (const child of command.commands) keep(child);
    };
    keep(program);
    await expect(program.parseAsync(words, { from: "user" })).rejects.toThrow("outputHelp");
    expect(text).toContain(`Examples:\n  vmsan ${EXAMPLES[words.slice(0, -1).join(" ")]?.[0]}`);
  }
});

test.each([
  ["destroy box", "unknown command 'destroy'", "Use `vmsan rm -f VM`."],
  ["create --image x", "unknown option '--image'", /--from-image IMAGE/],
  ["cp -r a b:", "unknown option '-r'", /directories are copied/],
  ["volume frob x", "unknown command 'frob'", /`vmsan volume` has create, ls/],
  ["network rm", "missing required argument 'name'", /^Usage: vmsan network rm/],
  ["network", "missing required argument 'vm'", /network ls/],
  ["start", "missing required argument 'vm'", /^Usage: vmsan start \[options\] <vm...>/],
])("%s is answered with what to type instead", async (line, said, fix) => {
  const words = line.split(" ");
  const program = await createProgram(words);
  let asked: Command | undefined;
  const catchError = (command: Command): void => {
    command.configureOutput({ writeErr: () => undefined });
    command.exitOverride((error) => {
      asked = command;
      throw error;
    });
    for (const child of command.commands) catchError(child);
  };
  catchError(program);
  await expect(program.parseAsync(words, { from: "user" })).rejects.toThrow(said);
  expect(hintFor(said, words, asked).fix).toMatch(fix);
});

test("every option of the habits has the advice that stands beside it, in each of its commands", () => {
  const lost = OPTIONS.flatMap(({ words, commands, fix }) =>
    words.flatMap((word) =>
      (commands ?? [undefined]).flatMap((command) => {
        const args = command === undefined ? [word] : [command, word];
        const told = hintFor(`error: unknown option '${word}'`, args, undefined).fix;
        return told === fix ? [] : [`${args.join(" ")}: ${told}`];
      }),
    ),
  );
  expect(lost).toEqual([]);
});

test("what commands know is not among the habits", async () => {
  const { commands } = await createProgram();
  const called = (name: string): Command[] =>
    commands.filter((one) => [one.name(), ...one.aliases()].includes(name));
  for (const { words, commands: names = [] } of OPTIONS) {
    for (const name of names) {
      const [command] = called(name);
      const known = command?.options.flatMap(({ short, long }) => [short, long]);
      expect([name, known?.filter((word) => words.includes(word ?? ""))]).toEqual([name, []]);
    }
  }
  const learnt = COMMANDS.flatMap(({ words }) => words).filter((word) => called(word).length > 0);
  expect(learnt).toEqual([]);
});

test("the flags of a cluster stand before the command, and one command is loaded behind them", async () => {
  for (const flags of [
    ["--cluster"],
    ["--cluster", "--context", "exec", "--namespace=run"],
    ["--kubeconfig", "list", "--json", "--cluster"],
  ]) {
    const { commands } = await createProgram([...flags, "list"]);
    expect(commands.map((one) => one.name())).toEqual(["list"]);
  }
});

test("a command says what it is for: a cluster, this host, or that it cannot be the other", async () => {
  const parsed = async (...words: string[]): Promise<Command> => await parsedBy(words);
  const named = ["--cluster", "--context", "c", "--namespace", "n", "--kubeconfig", "f"];
  expect(clusterOf(await parsed(...named, "list"))).toEqual({
    context: "c",
    namespace: "n",
    kubeconfig: "f",
  });
  expect(clusterOf(await parsed("list"))).toBeUndefined();
  // A flag of its own, of the same name.
  expect(clusterOf(await parsed("node", "run", "--kubeconfig", "f"))).toBeUndefined();
  for (const words of [["doctor"], ["volume", "ls"], ["node", "run"]]) {
    const command = await parsed("--cluster", ...words);
    expect(() => clusterOf(command)).toThrow(`vmsan ${words[0]}: not offered on a cluster`);
  }
  const alone = await parsed("--namespace", "n", "list");
  expect(() => clusterOf(alone)).toThrow("--namespace says nothing without --cluster");
});
