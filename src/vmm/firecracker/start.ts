/** Starting the Firecracker process: under the jailer as root, else in namespaces of its own. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError } from "../../model/errors.ts";
import type { ProcessIdentity, VmSpec } from "../../model/vm.ts";
import { identityOf } from "../../util/process-identity.ts";
import type { SnapshotFiles } from "../driver.ts";
import { processExit, within } from "../exit.ts";
import { hostIdOf } from "../host-id.ts";
import { boxed, spawnDetached, tailOf, whyNoNetworkNamespace } from "../launch.ts";
import { claimUid, type UidRange } from "../uids.ts";
import { planCgroup } from "./cgroup-plan.ts";
import { diskFile, fcFiles, firecrackerArguments, jailerArguments } from "./config.ts";
import {
  checkJailPlace,
  grant,
  jailOf,
  ownedFile,
  placeFile,
  readPidFile,
  type Jail,
} from "./jail.ts";
import type { Place } from "./vm.ts";

/** A started process and what is known of it. */
export interface Launched {
  identity: ProcessIdentity;
  place: Place;
  exited: ReturnType<typeof processExit>;
  notEnforced: string[];
}

/** What starting takes. */
export interface StartRequest {
  spec: VmSpec;
  /** Absolute path of the program. */
  firecracker: string;
  from?: SnapshotFiles;
  /** File for standard output: the guest's console. */
  console: string;
  /** Milliseconds that the jailer may take. */
  timeoutMs: number;
}

/** What starting under the jailer takes besides. */
export interface JailedRequest extends StartRequest {
  jailer: string;
  uidDir: string;
  /** Undefined when there are no ids to give. */
  range: UidRange | undefined;
}

/** Files that Firecracker reads and writes, by their names in its root. */
function neededFiles(
  spec: VmSpec,
  from?: SnapshotFiles,
): { name: string; path: string; writable: boolean }[] {
  const own = (name: string, path: string) => ({ name, path, writable: false });
  return [
    own(fcFiles.kernel, spec.kernel),
    own(fcFiles.initramfs, spec.initramfs),
    ...(from === undefined
      ? []
      : [own(fcFiles.snapshotState, from.state), own(fcFiles.snapshotMemory, from.memory)]),
    ...spec.disks.map((disk, index) => ({
      name: diskFile(index),
      path: disk.path,
      writable: !disk.readonly,
    })),
  ];
}

/** Whether an empty network namespace is to be made, and can be. */
async function emptyNetwork(spec: VmSpec, notEnforced: string[]): Promise<boolean> {
  if (!spec.isolation.networkNamespace || spec.network !== undefined) return false;
  const why = await whyNoNetworkNamespace();
  if (why !== undefined) notEnforced.push(`network namespace: ${why}`);
  return why === undefined;
}

/** An ERR_VMM_START error with what the VMM and the jailer have said. */
export async function startError(
  id: string,
  console: string,
  why: string,
  details?: Record<string, unknown>,
): Promise<VmsanError> {
  const said = await tailOf(console, 2000);
  return new VmsanError({
    code: "ERR_VMM_START",
    message: `Cannot start Firecracker for the VM ${id}`,
    why: said === "" ? why : `${why} It said: ${said}`,
    fix: "Run `vmsan doctor`; if it finds nothing, report this with the text above.",
    ...(details === undefined ? {} : { details }),
  });
}

/** Make a jail and put everything into it that the VM needs. */
async function fillJail(request: JailedRequest): Promise<{ jail: Jail; uid: number }> {
  const { spec, from, range } = request;
  if (range === undefined) {
    throw new VmsanError({
      code: "ERR_VMM_UIDS",
      message: `Cannot give the VM ${spec.id} a user id of its own`,
      why: "This user namespace has no unused ids.",
      fix: "Configure a range of user ids that exist here.",
    });
  }
  const jail = jailOf(spec, request.firecracker);
  await mkdir(jail.root, { recursive: true, mode: 0o700 });
  await checkJailPlace(jail.root);
  const uid = await claimUid(request.uidDir, range, hostIdOf(spec), spec.dir);
  for (const { name, path, writable } of neededFiles(spec, from)) {
    const to = join(jail.root, name);
    await placeFile(path, to, writable);
    await grant(to, uid, writable);
  }
  await mkdir(join(jail.root, "run"), { mode: 0o700 });
  for (const name of [fcFiles.log, fcFiles.metrics]) await ownedFile(join(jail.root, name), uid);
  return { jail, uid };
}

/** As root: fill a jail and run the jailer. */
export async function startJailed(request: JailedRequest): Promise<Launched> {
  const { spec, firecracker, jailer } = request;
  const { jail, uid } = await fillJail(request);
  const { cgroup, notEnforced } = await planCgroup(spec);
  const netns = spec.isolation.networkNamespace ? spec.network?.netns : undefined;
  const own = await emptyNetwork(spec, notEnforced);
  const argv = boxed(
    jailerArguments(spec, {
      jailer,
      firecracker,
      base: jail.base,
      uid,
      gid: uid,
      ...(netns === undefined ? {} : { netns }),
      ...(cgroup === undefined ? {} : { cgroup }),
    }),
    { cgroups: [], network: own ? "new" : "host", userNamespace: false, noNewPrivileges: false },
  );
  const { child, identity } = await spawnDetached(argv, { cwd: spec.dir, log: request.console });
  const place: Place = { root: jail.root, prefix: "/", uid };
  const exited = processExit(identity, child);
  if (!spec.isolation.pidNamespace) return { identity, place, exited, notEnforced };
  const found = await jailedProcess(request, jail, exited);
  return { identity: found, place, exited: processExit(found), notEnforced };
}

/** The process that a jailer leaves behind in a PID namespace of its own. */
async function jailedProcess(
  request: StartRequest,
  jail: Jail,
  jailerExit: ReturnType<typeof processExit>,
): Promise<ProcessIdentity> {
  const exit = await within(jailerExit, request.timeoutMs);
  const pid = exit?.code === 0 ? await readPidFile(jail) : undefined;
  const identity = pid === undefined ? undefined : identityOf(pid);
  if (identity !== undefined) return identity;
  let why = "The jailer does not come to an end.";
  if (exit !== undefined && exit.code !== 0) {
    why = `The jailer ended with ${exit.signal ?? `status ${exit.code}`}.`;
  } else if (exit !== undefined) why = "Firecracker ended at once.";
  throw await startError(request.spec.id, request.console, why);
}

/** Without root: Firecracker itself, in namespaces of its own. */
export async function startBare(request: StartRequest): Promise<Launched> {
  const { spec, firecracker } = request;
  if (!spec.isolation.pidNamespace) {
    throw new VmsanError({
      code: "ERR_DRIVER_ISOLATION",
      message: "Cannot use --no-pid-ns without root",
      why: "Without root there is no jailer, hence no PID namespace to turn off.",
      fix: "Leave out --no-pid-ns.",
    });
  }
  const root = join(spec.dir, "vmm");
  for (const { name, path, writable } of neededFiles(spec, request.from)) {
    await placeFile(path, join(root, name), writable);
  }
  await mkdir(join(root, "run"), { recursive: true, mode: 0o700 });
  const notEnforced = [
    "own user id, root directory and control group: these need root and the jailer",
  ];
  const own = await emptyNetwork(spec, notEnforced);
  const { netns, userns } = spec.network ?? {};
  const entered =
    netns === undefined
      ? undefined
      : { path: netns, ...(userns === undefined ? {} : { user: userns }) };
  const argv = boxed(
    // Unlike under the jailer, the name is not given by somebody else.
    [firecracker, "--id", hostIdOf(spec), ...firecrackerArguments(spec, "")],
    {
      cgroups: [],
      network: entered ?? (own ? "new" : "host"),
      userNamespace: true,
      noNewPrivileges: true,
    },
  );
  const { child, identity } = await spawnDetached(argv, { cwd: root, log: request.console });
  return {
    identity,
    place: { root, prefix: "" },
    exited: processExit(identity, child),
    notEnforced,
  };
}
