/** The steps of a build, done one after another in a VM. */
import { randomUUID } from "node:crypto";
import { posix } from "node:path";
import { listFiles, makeDirectory, removeFile, statFile } from "../../../agent/files.ts";
import type { FileEntry } from "../../../agent/files.ts";
import { guestErrno } from "../../../agent/transport.ts";
import type { Vm } from "../../../client/vm.ts";
import { VmsanError } from "../../../model/errors.ts";
import { E2bError } from "../errors.ts";

/** How long a step, and the wait for readiness, may take, in milliseconds. */
const STEP_MS = 3_600_000;
const READY_MS = 600_000;
const READY_PAUSE_MS = 500;

/** A step as clients send it. */
export interface Step {
  type: string;
  args: readonly string[];
  /** Of COPY: the hash that its files were uploaded by. */
  filesHash?: string | null | undefined;
}

/** What a step changes for those behind it, and for sandboxes. */
export interface Scene {
  env: string[];
  user?: string;
  workdir?: string;
}

/** A step that failed. */
export class StepError extends Error {
  /** Its index, which clients show the line of. */
  readonly step: string | undefined;

  constructor(message: string, step?: string) {
    super(message);
    this.step = step;
  }
}

/** Where steps are done. */
export interface Stage {
  vm: Vm;
  scene: Scene;
  /** Write down what a step prints. */
  say: (message: string, step?: string) => void;
  /** The tar archive that was uploaded by a hash. */
  files: (hash: string) => Promise<AsyncIterable<Buffer>>;
}

/** Take up a step that runs nothing. @throws StepError for one that cannot be done */
export function setScene(scene: Scene, { type, args }: Step, step: string): void {
  const [first = ""] = args;
  if (type === "ENV") {
    for (let i = 0; i + 1 < args.length; i += 2) scene.env.push(`${args[i]}=${args[i + 1]}`);
  } else if (type === "USER") scene.user = first;
  else if (type === "WORKDIR") scene.workdir = first;
  else throw new StepError(`steps of the kind ${type.slice(0, 20)} are not offered`, step);
}

/** Do one step. @param step its index. @throws StepError */
export async function doStep(stage: Stage, wish: Step, step: string): Promise<void> {
  const { vm, scene } = stage;
  const [first = "", user] = wish.args;
  try {
    if (wish.type === "RUN") {
      const status = await command(
        stage,
        ["/bin/sh", "-c", first],
        user ? { ...scene, user } : scene,
        step,
      );
      if (status !== 0) throw new Error(`exit status ${status}`);
    } else if (wish.type === "COPY") await copy(stage, wish, step);
    else {
      setScene(scene, wish, step);
      if (wish.type !== "WORKDIR" || (await look(vm, placeOf(stage, ""))) !== undefined) return;
      await makeDirectory(vm.transport, placeOf(stage, ""), { user: "root", parents: true });
      await asRoot(stage, ["chown", "--", ownerOf(stage), placeOf(stage, "")], step);
    }
  } catch (error) {
    if (error instanceof StepError || wish.type !== "RUN") throw error;
    // In the words that E2B's own builds use, which clients' users search for.
    throw new StepError(`failed to run command '${first}': ${reasonOf(error, user)}`, step);
  }
}

function reasonOf(error: unknown, user: string | undefined): string {
  if (error instanceof VmsanError && error.code === "ERR_AGENT_USER")
    return `command failed: unauthenticated: invalid username: '${user ?? ""}'`;
  if (error instanceof VmsanError) return [error.message, error.why].filter(Boolean).join(": ");
  return error instanceof Error ? error.message : String(error);
}

/** Run a command; what it prints is written down. @returns its status */
async function command(
  { vm, say }: Stage,
  argv: string[],
  scene: Scene,
  step: string,
): Promise<number> {
  const line = (bytes: Buffer): void => say(bytes.toString("utf8"), step);
  const options = { ...scene, stdin: false, timeoutMs: STEP_MS };
  const stream = vm.spawn(argv, options, { onStdout: line, onStderr: line });
  return (await stream.exit).exitCode;
}

async function asRoot(stage: Stage, argv: string[], step: string): Promise<void> {
  const status = await command(stage, argv, { env: [], user: "root", workdir: "/" }, step);
  if (status !== 0) throw new StepError(`${argv[0]} ended with status ${status}`, step);
}

/** Who owns what a step makes, as chown takes it: who is named, else the user that commands run as. */
function ownerOf({ vm, scene }: Stage, named = ""): string {
  const { defaults, image } = vm.view;
  const owner = named || scene.user || defaults.user || image?.config.user || "root";
  // A name alone brings its own group; a number may have none.
  return /^\d+$|:/.test(owner) ? owner : `${owner}:`;
}

/** A path of a step as an absolute one. */
function placeOf({ vm, scene }: Stage, path: string): string {
  const { workdir = vm.view.defaults.workdir ?? vm.view.image?.config.workingDir ?? "/" } = scene;
  return posix.resolve("/", workdir, path);
}

/** What is at a path, symlinks followed; undefined when there is nothing. */
async function look(vm: Vm, path: string): Promise<FileEntry | undefined> {
  try {
    return await statFile(vm.transport, path, { user: "root", follow: true });
  } catch (error) {
    if (guestErrno(error) === "ENOENT" || guestErrno(error) === "ENOTDIR") return undefined;
    throw error;
  }
}

/**
 * COPY as a Dockerfile has it: a file to a name or into a directory, of a directory and of several
 * matches what is in them.
 */
async function copy(stage: Stage, { args, filesHash }: Step, step: string): Promise<void> {
  const { vm } = stage;
  const [source = "", destination = "", user, mode] = args;
  if (!filesHash) throw new StepError("the step has no files", step);
  const scratch = `/tmp/.vmsan-copy-${randomUUID()}`;
  const root = { user: "root" };
  try {
    const archive = await stage.files(filesHash);
    await vm.unpack(archive, scratch, { ...root, parents: true });
    const from = await copied(vm, scratch, source);
    if (from === undefined) throw new StepError(`no file of ${source} was uploaded`, step);
    const owner = ownerOf(stage, user);
    await asRoot(stage, ["chown", "-R", "-h", "--", owner, scratch], step);
    if (mode) await asRoot(stage, ["chmod", "-R", mode, from.path], step);
    const target = placeOf(stage, destination);
    const there = (await look(vm, target))?.type === "dir";
    const into = from.type === "dir" || there || /(?:^|\/)\.?$/.test(destination);
    const directory = into ? target : posix.dirname(target);
    if ((await look(vm, directory)) === undefined) {
      await makeDirectory(vm.transport, directory, { ...root, parents: true });
      await asRoot(stage, ["chown", "--", owner, directory], step);
    }
    const what = from.type === "dir" ? `${from.path}/.` : from.path;
    await asRoot(stage, ["cp", "-a", "--", what, into ? `${target}/` : target], step);
  } catch (error) {
    if (error instanceof E2bError) throw new StepError(error.message, step);
    throw error;
  } finally {
    // The VM is gone soon; what failed before is what counts.
    await removeFile(vm.transport, scratch, { ...root, recursive: true }).catch(() => undefined);
  }
}

/** The part of an unpacked archive that a pattern means: one thing, or the directory of several. */
async function copied(vm: Vm, scratch: string, pattern: string): Promise<FileEntry | undefined> {
  const words = posix.normalize(pattern).split("/");
  const open = words.findIndex((word) => /[*?[\]{}()!+@]/.test(word));
  const fixed = open < 0 ? words : words.slice(0, open);
  const path = posix.resolve(scratch, fixed.join("/"));
  if (path !== scratch && !path.startsWith(`${scratch}/`)) return undefined;
  const lookAt = async (at: string): Promise<FileEntry> =>
    await statFile(vm.transport, at, { user: "root" });
  // A name with such letters that is just there is meant itself.
  if (open >= 0) {
    const whole = posix.resolve(scratch, words.join("/"));
    if ((await look(vm, whole)) !== undefined) return await lookAt(whole);
    const inside = await listFiles(vm.transport, path, { user: "root" });
    const [only] = inside;
    if (inside.length === 1 && only !== undefined) return only;
  }
  try {
    return await lookAt(path);
  } catch (error) {
    if (guestErrno(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Start what is to run in every sandbox, and wait until it says that it is ready. @throws StepError */
export async function startUp(
  { vm, scene, say }: Stage,
  startCmd: string | null | undefined,
  readyCmd: string | null | undefined,
): Promise<void> {
  if (startCmd) {
    say(`starting ${startCmd}`);
    const label = `start:${randomUUID().slice(0, 8)}`;
    const options = { ...scene, stdin: false, detach: true, label };
    await vm.spawn(["/bin/sh", "-c", startCmd], options).started;
  }
  if (!readyCmd) return;
  const deadline = Date.now() + READY_MS;
  for (;;) {
    const { exitCode } = await vm.exec(["/bin/sh", "-c", readyCmd], scene);
    if (exitCode === 0) return;
    if (Date.now() > deadline) throw new StepError("it did not become ready in ten minutes");
    await new Promise((resolve) => setTimeout(resolve, READY_PAUSE_MS));
  }
}
