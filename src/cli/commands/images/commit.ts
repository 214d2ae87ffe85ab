/** `vmsan commit`: a VM's changes as an image; `vmsan image diff`: what they are. */
import type { Command } from "commander";
import { collect, command, runs } from "../../command.ts";
import { oneLine } from "../../output.ts";
import { withProgress } from "../../with-progress.ts";

interface CommitFlags {
  change?: string[];
  message?: string;
  author?: string;
}

/** `commit`. */
export function commitCommand(): Command {
  const target = command("commit <vm> <image>", "make an image of a VM's changes")
    .option("-c, --change <instruction>", "an instruction over the configuration", collect)
    .option("-m, --message <text>", "what was done, for the image's history")
    .option("-a, --author <name>", "who did it");
  return runs<CommitFlags>(target, (context, ref: string, name: string) =>
    withProgress(
      context,
      async (work) => {
        const { change = [], message, author } = context.flags;
        const vm = await (await context.vmsan()).get(ref);
        return await vm.commit(name, {
          ...work,
          changes: change,
          ...(message === undefined ? {} : { message }),
          ...(author === undefined ? {} : { author }),
        });
      },
      (report) => {
        for (const warning of report.warnings) context.output.note(`warning: ${warning}`);
        context.output.result(report, report.digest);
      },
    ),
  );
}

const LETTERS = { added: "A", changed: "C", deleted: "D" } as const;

/** `image diff`. */
export function diffCommand(): Command {
  return runs(command("diff <vm>", "what a VM has changed of its image"), (context, ref: string) =>
    withProgress(
      context,
      async ({ signal }) => {
        const vm = await (await context.vmsan()).get(ref);
        return await vm.diff({ signal });
      },
      (changes) =>
        context.output.result(
          { changes },
          changes.map(({ kind, path }) => `${LETTERS[kind]} ${oneLine(path)}`).join("\n"),
        ),
    ),
  );
}
