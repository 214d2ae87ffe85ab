/** A container's main process in its guest: started as it is configured, and found again. */
import type { StreamInfo } from "../../../../agent/spec.ts";
import type { GuestStream, StreamOptions } from "../../../../agent/streams.ts";
import type { Vm } from "../../../../client/vm.ts";
import type { Vmsan } from "../../../../client/vmsan.ts";
import { findMain, isLost, spawnMain } from "../../../../containers/main.ts";
import type { ContainerRecord } from "../../../../schema/docker.ts";
import { argvOf } from "../request/config.ts";

/** Label of the main process's stream in the guest. */
const MAIN_LABEL = "vmsan.docker.main";

/** Start the main process of a container. */
export function startMain(
  vm: Vm,
  { config }: ContainerRecord,
  size: { rows: number; cols: number },
  io: StreamOptions,
): GuestStream {
  const { Tty: tty, OpenStdin: input } = config;
  const options = {
    stdin: input || tty,
    label: MAIN_LABEL,
    ...(tty ? { tty: { ...size, term: "xterm" } } : {}),
  };
  return spawnMain(vm, argvOf(config), options, io);
}

/**
 * The main process of a container that a gateway before this one has started; undefined: it is no more. Without `info` it is one of
 * a guest whose processors are halted, and which cannot be asked.
 */
export async function mainBefore(
  vmsan: Vmsan,
  { vm: id, run }: ContainerRecord,
): Promise<{ vm: Vm; stream: string; info?: StreamInfo } | undefined> {
  if (id === undefined) return undefined;
  try {
    const vm = await vmsan.get(id);
    const { status } = vm.view;
    if (status === "paused" && run !== undefined) return { vm, stream: run };
    if (status !== "running") return undefined;
    const info = await findMain(vm, MAIN_LABEL);
    return info === undefined ? undefined : { vm, stream: info.id, info };
  } catch (error) {
    if (isLost(error)) return undefined;
    throw error;
  }
}
