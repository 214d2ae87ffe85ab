/** Making, starting, stopping and removing VMs, also when the daemon dies meanwhile. */
import type { CreateRequest, UpdateRequest, VmView } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { Daemon, WorkOptions } from "./daemon.ts";
import type { Hold } from "./hold.ts";
import { daemonLost } from "./lost.ts";
import { parseBootTimeout } from "../util/boot-timeout.ts";
import { invalid, parseDiskSize, parseInteger, parseMemory } from "../util/units.ts";
import { hostWishes } from "./options.ts";
import { vmPath } from "./paths.ts";

/** What an error of {@link Daemon} says when the daemon ended before it had answered. */
function isLost(error: unknown): error is VmsanError {
  return error instanceof VmsanError && error.code === "ERR_DAEMON_LOST";
}

/**
 * What the next daemon has made of a VM that was about to run.
 * @returns its view when it runs
 * @throws ERR_DAEMON_LOST that says what it is now
 */
async function lookAfter(
  ref: string | undefined,
  what: string,
  cause: VmsanError,
  look: (ref: string) => Promise<VmView>,
): Promise<VmView> {
  const again = "Run the command again.";
  if (ref === undefined) {
    const became = "Nothing had been made, or the next daemon removes it.";
    throw daemonLost(`the VM ${what}`, became, again, cause, { vm: "none" });
  }
  let view: VmView;
  try {
    view = await look(ref);
  } catch (error) {
    const named = { vmId: ref };
    if (error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND") {
      const became = "The next daemon has removed all that had been made of it.";
      throw daemonLost(`${ref} ${what}`, became, again, cause, { ...named, vm: "removed" });
    }
    const became = `What has become of the VM is not known: ${messageOf(error)}`;
    const fix = `See what it is now: vmsan inspect ${ref}`;
    throw daemonLost(`${ref} ${what}`, became, fix, cause, { ...named, vm: "unknown" });
  }
  // All was done, and only the answer was lost.
  if (view.status === "running") return view;
  const became = `It is ${view.status}; its disk is as it was.`;
  const details = { vmId: view.id, vm: view.status };
  throw daemonLost(`${ref} ${what}`, became, `Start it: vmsan start ${ref}`, cause, details);
}

/** How to make a VM. */
export interface CreateWork extends WorkOptions {
  /** Called with its ID before anything else is done. */
  onVm?: (id: string) => void;
  /** Keeps an ephemeral one. */
  hold?: Hold | undefined;
}

/** Make a VM and wait until commands can run in it. */
export async function createVm(
  daemon: Daemon,
  request: CreateRequest,
  { hold, onVm, ...work }: CreateWork,
): Promise<VmView> {
  let made: string | undefined;
  try {
    return await daemon.streamed<VmView>("POST", "/v1/vms", {
      body: request,
      ...work,
      onVm: (id) => {
        made = id;
        hold?.on(id);
        onVm?.(id);
      },
      ...hold?.options,
    });
  } catch (error) {
    if (!isLost(error)) throw error;
    return await lookAfter(made, "was ready", error, (id) =>
      hold === undefined
        ? daemon.call<VmView>("GET", vmPath(id))
        : daemon.streamed<VmView>("GET", vmPath(id, "hold"), hold.options),
    );
  }
}

/** How a stopped VM is started. */
export interface StartOptions extends WorkOptions {
  /** Longest boot, of this start and later ones, instead of the VM's own: `90s`, `5m`. */
  bootTimeout?: number | string;
}

/** Start a stopped VM. @throws ERR_VM_NOT_STOPPED */
export async function startVm(
  daemon: Daemon,
  ref: string,
  { bootTimeout, ...work }: StartOptions,
): Promise<VmView> {
  const body = {
    host: hostWishes(),
    ...(bootTimeout === undefined ? {} : { bootTimeoutMs: parseBootTimeout(bootTimeout) }),
  };
  try {
    return await daemon.streamed<VmView>("POST", vmPath(ref, "start"), { ...work, body });
  } catch (error) {
    if (!isLost(error)) throw error;
    return await lookAfter(ref, "was started", error, (id) =>
      daemon.call<VmView>("GET", vmPath(id)),
    );
  }
}

/** Another size for a VM, or other labels; what is left out stays. */
export interface UpdateOptions {
  /** GiB, larger than it is. */
  disk?: number | string;
  /** MiB or with unit; of a stopped VM. */
  memory?: number | string;
  /** 1–32; of a stopped VM. */
  vcpus?: number | string;
  /** In place of all that it has; also of one that sleeps. */
  labels?: Record<string, string>;
}

/** Change a VM's size or labels. @throws ERR_VALIDATION_*, ERR_VM_NOT_STOPPED, ERR_DRIVER_UNSUPPORTED, ERR_DISK_GROW */
export async function updateVm(
  daemon: Daemon,
  ref: string,
  { disk, memory, vcpus, labels }: UpdateOptions,
): Promise<VmView> {
  const body: UpdateRequest = {
    ...(disk === undefined ? {} : { diskSizeBytes: parseDiskSize(disk) }),
    ...(memory === undefined ? {} : { memMib: parseMemory(memory) }),
    ...(vcpus === undefined ? {} : { vcpus: parseInteger("vcpus", vcpus, 1, 32) }),
    ...(labels === undefined ? {} : { labels }),
  };
  if (Object.keys(body).length === 0) {
    throw invalid(
      "FLAGS",
      "update",
      ref,
      "Nothing is to be changed.",
      "Give --disk, --memory or --vcpus.",
    );
  }
  return await daemon.call<VmView>("POST", vmPath(ref, "update"), { body, repeat: true });
}

/** Stop a VM. @param graceMs milliseconds until it is stopped by force; undefined: the default */
export async function stopVm(
  daemon: Daemon,
  ref: string,
  graceMs: number | undefined,
): Promise<void> {
  await daemon.call("POST", vmPath(ref, "stop"), {
    body: graceMs === undefined ? {} : { graceMs },
    repeat: true,
    doneIf: "ERR_VM_NOT_RUNNING",
  });
}

/** Remove a VM with its disk. @throws ERR_VM_NOT_STOPPED without `force` while it runs */
export async function removeVm(daemon: Daemon, ref: string, force: boolean): Promise<void> {
  await daemon.call("DELETE", `${vmPath(ref)}${force ? "?force=true" : ""}`, {
    doneIf: "ERR_VM_NOT_FOUND",
  });
}
