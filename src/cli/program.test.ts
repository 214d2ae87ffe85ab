import type { Command } from "commander";
import { expect, test } from "vitest";
import { clusterOf } from "./cluster-flags.ts";
import { createProgram } from "./program.ts";

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
  const parsed = async (...words: string[]): Promise<Command> => {
    const program = await createProgram(words);
    let ran: Command | undefined;
    const catchAction = (command: Command): void => {
      command.action(() => void (ran = command));
      for (const child of command.commands) catchAction(child);
    };
    catchAction(program);
    await program.parseAsync(words, { from: "user" });
    if (ran === undefined) throw new Error("nothing ran");
    return ran;
  };
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
