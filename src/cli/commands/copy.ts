/** `upload`, `download`, `cp`: files and directories into and out of a VM. */
import type { Command } from "commander";
import { asStep } from "../../client/tracing/timeline.ts";
import type { Vm } from "../../client/vm.ts";
import { VmsanError } from "../../model/errors.ts";
import { command, runs } from "../command.ts";
import type { Context } from "../command.ts";
import { withProgress } from "../with-progress.ts";

interface Flags {
  dest?: string;
  user?: string;
}

/** A file to standard output or from standard input is named so. */
const STANDARD = "-";

function usage(message: string, fix: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message,
    why: "It is not clear what goes where.",
    fix,
  });
}

/** Files as the arguments name them, and where they go. */
export function uploadTargets(
  args: readonly string[],
  dest: string | undefined,
): { sources: string[]; destination: string } {
  if (dest !== undefined) return { sources: [...args], destination: dest };
  const last = args.at(-1);
  // `upload VM ./a /remote/a`: two names of which the second is absolute; of more, `upload VM ./a ./b /remote/`.
  if (
    last?.startsWith("/") === true &&
    (args.length === 2 || (args.length > 2 && last.endsWith("/")))
  ) {
    return { sources: args.slice(0, -1), destination: last };
  }
  return { sources: [...args], destination: "./" };
}

/** Copy with progress; an interrupt ends it and leaves no half of a file. */
async function copying(
  context: Context<Flags>,
  ref: string,
  phase: string,
  body: (vm: Vm, work: CopyWork) => Promise<Record<string, unknown>>,
): Promise<number> {
  const { output, flags } = context;
  const vm = await (await context.vmsan()).get(ref);
  return await withProgress(
    context,
    async ({ onProgress, signal }) =>
      await asStep(
        phase,
        async () =>
          await body(vm, {
            ...(flags.user === undefined ? {} : { user: flags.user }),
            signal,
            onProgress: (done) => onProgress({ phase, done, unit: "bytes" }),
            onSkip: (what, why) => output.note(`left out: ${what}: ${why}`),
          }),
      ),
    (result) => output.result({ vmId: vm.id, ...result }),
    true,
  );
}

interface CopyWork {
  user?: string;
  signal: AbortSignal;
  onProgress: (bytes: number) => void;
  onSkip: (what: string, why: string) => void;
}

/** Upload, or write standard input to one file. */
async function put(vm: Vm, sources: string[], destination: string, work: CopyWork): Promise<void> {
  if (!sources.includes(STANDARD)) return await vm.upload(sources, destination, work);
  if (sources.length > 1 || destination.endsWith("/")) {
    throw usage(
      "Cannot upload standard input",
      "Name one file for it: vmsan upload VM - -d /path/file.",
    );
  }
  return await vm.writeFile(destination, process.stdin as AsyncIterable<Buffer>, work);
}

/** Download, or read one file to standard output. */
async function get(vm: Vm, path: string, destination: string, work: CopyWork): Promise<void> {
  if (destination !== STANDARD) return await vm.download(path, destination, work);
  return await vm.readFile(
    path,
    (bytes) =>
      process.stdout.write(bytes)
        ? undefined
        : new Promise<void>((resolve) => process.stdout.once("drain", resolve)),
    work,
  );
}

/** `upload VM FILE… [-d DEST]`. */
export function uploadCommand(): Command {
  const target = command("upload <vm> <files...>", "copy files and directories into a VM")
    .option(
      "-d, --dest <path>",
      "where to (default: the last name if it is /PATH, of several sources /PATH/; else the login user's home)",
    )
    .option("-u, --user <user>", "write as this user");
  return runs<Flags>(target, (context, ref: string, args: string[]) =>
    copying(context, ref, "upload", async (vm, work) => {
      const { sources, destination } = uploadTargets(args, context.flags.dest);
      await put(vm, sources, destination, work);
      return { files: sources, destination };
    }),
  );
}

/** `download VM PATH [DEST] [-d DEST]`. */
export function downloadCommand(): Command {
  const target = command(
    "download <vm> <path> [destination]",
    "copy a file or directory out of a VM",
  )
    .option("-d, --dest <path>", "where to; - for standard output (default: this directory)")
    .option("-u, --user <user>", "read as this user");
  return runs<Flags>(target, (context, ref: string, path: string, second?: string) =>
    copying(context, ref, "download", async (vm, work) => {
      const { dest } = context.flags;
      if (dest !== undefined && second !== undefined) {
        throw usage("Two destinations are given", "Give one of them: -d DEST, or DEST.");
      }
      const destination = dest ?? second ?? ".";
      await get(vm, path, destination, work);
      // Standard output has the file's bytes, not a reply.
      if (destination === STANDARD) process.exitCode = 0;
      return { path, destination };
    }),
  );
}

/** `VM:PATH` as its parts; undefined for a path of this host. */
export function remotePath(text: string): { vm: string; path: string } | undefined {
  const match = /^([a-z0-9][a-z0-9._-]{0,62}):(.*)$/s.exec(text);
  if (match === null) return undefined;
  return { vm: match[1] ?? "", path: match[2] === "" ? "." : (match[2] ?? ".") };
}

/** `cp SRC DST`, one of them VM:PATH. */
export function cpCommand(): Command {
  const target = command(
    "cp <source> <destination>",
    "copy between this host and a VM: VM:PATH",
  ).option("-u, --user <user>", "read or write in the VM as this user");
  return runs<Flags>(target, (context, source: string, destination: string) => {
    const [from, to] = [remotePath(source), remotePath(destination)];
    if ((from === undefined) === (to === undefined)) {
      throw usage(
        `Cannot copy ${source} to ${destination}`,
        "Name a VM on exactly one side: vmsan cp ./a web:/srv/a.",
      );
    }
    if (to !== undefined) {
      return copying(context, to.vm, "upload", async (vm, work) => {
        await put(vm, [source], to.path, work);
        return { source, destination };
      });
    }
    return copying(context, from?.vm ?? "", "download", async (vm, work) => {
      await get(vm, from?.path ?? ".", destination, work);
      return { source, destination };
    });
  });
}
