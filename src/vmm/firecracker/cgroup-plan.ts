/** Which control group settings the jailer is given: those that this host can enforce. */
import { accessSync, constants } from "node:fs";
import { messageOf } from "../../model/errors.ts";
import type { VmSpec } from "../../model/vm.ts";
import { cgroupSettings, controllers, findCgroups, type CgroupMounts } from "../cgroup.ts";
import { cgroupLimits, type JailChoices } from "./config.ts";

/** Settings for the jailer and what cannot be enforced. */
export interface CgroupPlan {
  cgroup?: NonNullable<JailChoices["cgroup"]>;
  notEnforced: string[];
}

/** Why a directory cannot be written to; undefined when it can. */
function whyReadOnly(dir: string): string | undefined {
  try {
    accessSync(dir, constants.W_OK);
    return undefined;
  } catch (error) {
    return messageOf(error);
  }
}

/**
 * Plan a VM's control group: version 2 where it has all controllers, else version 1. The jailer
 * fails as a whole on a setting that does not work, so that those are left out and named.
 */
export async function planCgroup(spec: VmSpec, mounts?: CgroupMounts): Promise<CgroupPlan> {
  if (!spec.isolation.cgroup) return { notEnforced: [] };
  const found = mounts ?? (await findCgroups());
  const v2 = found.v2;
  const limits = cgroupLimits(spec);
  const version =
    v2 !== undefined && controllers.every((one) => v2.controllers.includes(one)) ? 2 : 1;
  const settings: [string, string][] = [];
  const notEnforced: string[] = [];
  for (const controller of controllers) {
    const mount = version === 2 ? v2?.path : found.v1[controller];
    const why =
      mount === undefined ? "no control group hierarchy of this host has it" : whyReadOnly(mount);
    if (why === undefined) settings.push(...cgroupSettings(version, controller, limits));
    else notEnforced.push(`${controller} limit: ${why}`);
  }
  return settings.length === 0 ? { notEnforced } : { cgroup: { version, settings }, notEnforced };
}
