/** Requests and limits of a container as a VM's size. Pure. */
import type { PodContainer } from "../../../schema/pod.ts";
import { PodRefusedError } from "./failure.ts";
import { parseQuantity } from "./quantity.ts";

const MIB = 2 ** 20;
const GIB = 2 ** 30;
/** What a VM has when nothing is said, and its bounds. */
const DEFAULT_MIB = 512;
const MIN_MIB = 128;
const MAX_MIB = 32_768;
const MAX_VCPUS = 32;
const MAX_DISK_GIB = 1024;

/** A VM's size. */
export interface Sizes {
  vcpus: number;
  memMib: number;
  /** Undefined: as every VM's. */
  diskGib: number | undefined;
}

/** Resources that a container may ask for. */
export type ResourceName = "cpu" | "memory" | "ephemeral-storage";

/** A container's limit or request; undefined: there is none. @throws PodRefusedError for what is no quantity */
export function resourceOf(
  { resources }: PodContainer,
  list: "limits" | "requests",
  name: ResourceName,
): number | undefined {
  const value = resources?.[list]?.[name];
  if (value === undefined) return undefined;
  const amount = parseQuantity(value);
  if (amount !== undefined) return amount;
  throw new PodRefusedError(
    "InvalidQuantity",
    `spec.containers[0].resources.${list}.${name}: ${JSON.stringify(value)} is no quantity`,
  );
}

/** What it may use at most: its limit, else what it asks for. */
function most(container: PodContainer, name: ResourceName): number | undefined {
  return resourceOf(container, "limits", name) ?? resourceOf(container, "requests", name);
}

function within(what: string, value: number, limit: number, unit: string): number {
  if (value <= limit) return value;
  throw new PodRefusedError(
    "OutOfBounds",
    `spec.containers[0].resources: ${value} ${unit} of ${what}; a VM has at most ${limit}`,
  );
}

/** The size of a container's VM. @throws PodRefusedError for more than a VM can have */
export function sizesOf(container: PodContainer): Sizes {
  const cpu = most(container, "cpu") ?? 1;
  const memory = most(container, "memory") ?? DEFAULT_MIB * MIB;
  const disk = most(container, "ephemeral-storage");
  return {
    vcpus: within("cpu", Math.max(1, Math.ceil(cpu)), MAX_VCPUS, "processors"),
    memMib: within("memory", Math.max(MIN_MIB, Math.ceil(memory / MIB)), MAX_MIB, "MiB"),
    diskGib:
      disk === undefined
        ? undefined
        : within("ephemeral-storage", Math.max(1, Math.ceil(disk / GIB)), MAX_DISK_GIB, "GiB"),
  };
}
