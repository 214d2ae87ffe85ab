import { expect, test } from "vitest";
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
