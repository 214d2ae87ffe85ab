/** The process of the command line. */
import { CommanderError } from "commander";
import type { Command } from "commander";
import { guardOutputs } from "./lost-output.ts";
import { EXIT_USAGE, Output } from "./output.ts";
import { createProgram } from "./program.ts";

/** Make commander throw instead of ending the process, and keep quiet with --json. */
function prepare(command: Command, json: boolean): void {
  command.exitOverride();
  if (json) command.configureOutput({ writeErr: () => undefined });
  for (const child of command.commands) prepare(child, json);
}

guardOutputs();

const decoded = process.argv.slice(2);
const words = decoded.some((word) => word.includes("\uFFFD"))
  ? (await import("./raw-words.ts")).rawWords(decoded)
  : decoded;
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
    const { hintFor } = await import("./hints.ts");
    const hint = hintFor(error.message, process.argv.slice(2));
    if (!json && hint !== undefined) new Output({ json }).note(`  fix: ${hint}`);
    if (json) {
      const { VmsanError } = await import("../model/errors.ts");
      new Output({ json }).failure(
        new VmsanError({
          code: "ERR_VALIDATION_FLAGS",
          message: error.message.replace(/^error: /, ""),
          why: "The command line was not understood.",
          fix: hint ?? "See vmsan --help, or vmsan COMMAND --help.",
        }),
      );
    }
  }
}
