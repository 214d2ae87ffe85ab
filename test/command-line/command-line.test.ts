/** The words of a command line: what is vmsan's and what is the command's. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CommanderError } from "commander";
import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { withoutSeparator } from "../../src/cli/command.ts";
import { execCommand } from "../../src/cli/commands/exec.ts";
import { runCommand } from "../../src/cli/commands/run.ts";
import { withCallersValues } from "../../src/cli/environment.ts";
import { createOptions } from "../../src/cli/create-flags.ts";
import type { CreateFlags } from "../../src/cli/create-flags.ts";
import { createRequest } from "../../src/client/options.ts";
import { mergeEnv } from "../../src/client/guest/commands.ts";

interface WordsCase {
  words: string[];
  vm?: string;
  argv?: string[];
  options?: Record<string, unknown>;
  error?: true;
}
const fixture = JSON.parse(readFileSync(join(import.meta.dirname, "words.json"), "utf8")) as {
  exec: WordsCase[];
  run: WordsCase[];
};

/** What a definition makes of the words, without doing it. */
function read(target: Command, words: string[]): Omit<WordsCase, "words"> {
  let result: Omit<WordsCase, "words"> = {};
  target
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
    .action((vm: string, argv: string[]) => {
      // Switches that are on unless one says otherwise are not set by anybody.
      const set = Object.entries(target.opts<Record<string, unknown>>()).filter(
        ([name]) => target.getOptionValueSource(name) === "cli",
      );
      result = { vm, argv, options: Object.fromEntries(set) };
    });
  try {
    target.parse(words, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError) || error.exitCode === 0) throw error;
    return { error: true };
  }
  return result;
}

describe("exec", () => {
  test.each(fixture.exec.map((each) => [each.words.join(" "), each] as const))(
    "%s",
    (_name, { words, ...expected }) => {
      expect(read(execCommand(), words)).toEqual(expected);
    },
  );
});

describe("run", () => {
  test.each(fixture.run.map((each) => [each.words.join(" "), each] as const))(
    "%s",
    (_name, { words, ...expected }) => {
      const { argv, ...rest } = read(runCommand(), words);
      expect({ ...rest, ...(argv === undefined ? {} : { argv: withoutSeparator(argv) }) }).toEqual(
        expected,
      );
    },
  );
});

const requests = JSON.parse(readFileSync(join(import.meta.dirname, "requests.json"), "utf8")) as {
  run: { words: string[]; request: object }[];
};

test.each(requests.run.map((each) => [each.words.join(" "), each] as const))(
  "run %s: what the daemon is asked for",
  (_name, { words, request }) => {
    const { vm = "", options } = read(runCommand(), words);
    const made = createRequest({
      ...createOptions(options as CreateFlags),
      image: vm,
      ephemeral: true,
    });
    expect(made).toEqual({ ...request, registry: made.registry, host: {} });
  },
);

test("a name alone has the caller's value; one that the caller has not goes away", () => {
  const caller = { HOSTV: "from here", EMPTY: "" };
  const given = withCallersValues(["HOSTV", "EMPTY", "ABSENT", "A=HOSTV"], caller);
  expect(given).toEqual(["HOSTV=from here", "EMPTY=", "ABSENT", "A=HOSTV"]);
  expect(mergeEnv(["ABSENT=image", "B=image"], ["B=vm"], given)).toEqual([
    "B=vm",
    "HOSTV=from here",
    "EMPTY=",
    "A=HOSTV",
  ]);
});
