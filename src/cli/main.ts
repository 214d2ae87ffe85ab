/** The process of the command line. */
import { CommanderError } from "commander";
import type { Command } from "commander";
import { guardOutputs } from "./lost-output.ts";
import { EXIT_USAGE, Output } from "./output.ts";
import { createProgram } from "./program.ts";

/** The command that did not understand its words. */
let asked: Command | undefined;

/** What commander says of it. */
let complaint = "";

/** Make commander throw instead of ending the process, and keep quiet with --json. */
function prepare(command: Command, json: boolean): void {
  command.exitOverride((error) => {
    asked = command;
    throw error;
  });
  command.configureOutput({
    outputError: (text) => void (complaint += text),
    ...(json ? { writeErr: () => undefined } : {}),
  });
  for (const child of command.commands) prepare(child, json);
}

guardOutputs();

const decoded = process.argv.slice(2);
const typed = decoded.some((word) => word.includes("\uFFFD"))
  ? (await import("./raw-words.ts")).rawWords(decoded)
  : decoded;
// Commander's `help` knows commands, and none below them.
const words = typed[0] === "help" && typed.length > 2 ? [...typed.slice(1), "--help"] : typed;
const program = await createProgram(words);
const before = process.argv.indexOf("--");
const own = before === -1 ? process.argv : process.argv.slice(0, before);
const json = own.includes("--json");
prepare(program, json);
try {
  await program.parseAsync(words, { from: "user" });
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // --help and --version end this way as well.
  if (error.exitCode === 0) process.exitCode = 0;
  else {
    process.exitCode = EXIT_USAGE;
    const { hintFor } = await import("./words/hints.ts");
    const { fix, isKnown } = hintFor(error.message, process.argv.slice(2), asked);
    if (!json) {
      // A word that is known means just one thing, whatever looks like it.
      const lines = complaint.trimEnd().split("\n");
      const said = isKnown ? lines.filter((line) => !line.startsWith("(Did you mean")) : lines;
      if (complaint !== "") new Output({ json }).note(...said, `  fix: ${fix}`);
    }
    if (json) {
      const { VmsanError } = await import("../model/errors.ts");
      new Output({ json }).failure(
        new VmsanError({
          code: "ERR_VALIDATION_FLAGS",
          message: error.message.replace(/^error: /, ""),
          why: "The command line was not understood.",
          fix,
        }),
      );
    }
  }
}
