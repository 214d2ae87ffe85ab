/** A container's main process in its guest: started, found again, and what else runs there ended. */
import { listStreams, signalStream } from "../../../../agent/commands.ts";
import type { GuestStream, StreamOptions } from "../../../../agent/streams.ts";
import type { Vm } from "../../../../client/vm.ts";
import type { Vmsan } from "../../../../client/vmsan.ts";
import { VmsanError } from "../../../../model/errors.ts";
import type { ContainerRecord } from "../../../../schema/docker.ts";
import { argvOf } from "../request/config.ts";

/** Label of the main process's stream in the guest. */
const MAIN_LABEL = "vmsan.docker.main";

/** Bytes of output that wait in the guest for a gateway that is away. */
const RING_BYTES = 8 << 20;

/** Start the main process: it goes on without this gateway, and its output waits for the next one. */
export function spawnMain(
  vm: Vm,
  { config }: ContainerRecord,
  size: { rows: number; cols: number },
  io: StreamOptions,
): GuestStream {
  const { Tty: tty, OpenStdin: input } = config;
  return vm.spawn(
    argvOf(config),
    {
      detach: true,
      hold: true,
      ringBytes: RING_BYTES,
      stdin: input || tty,
      label: MAIN_LABEL,
      ...(tty ? { tty: { ...size, term: "xterm" } } : {}),
    },
    io,
  );
}

/** Whether there is no such VM. */
export function isLost(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND";
}

/** The main process of a container that a gateway before this one has started; undefined: it is no more. */
export async function findMain(
  vmsan: Vmsan,
  { vm: id, run }: ContainerRecord,
): Promise<{ vm: Vm; stream: string; paused: boolean } | undefined> {
  if (id === undefined) return undefined;
  try {
    const vm = await vmsan.get(id);
    const { status } = vm.view;
    // A guest whose processors are halted cannot be asked.
    if (status === "paused" && run !== undefined) return { vm, stream: run, paused: true };
    if (status !== "running") return undefined;
    const streams = await listStreams(vm.transport);
    const mine = streams.filter(({ label }) => label === MAIN_LABEL);
    const last = mine.toSorted((a, b) => (a.startedAt < b.startedAt ? -1 : 1)).at(-1);
    return last === undefined ? undefined : { vm, stream: last.id, paused: false };
  } catch (error) {
    if (isLost(error)) return undefined;
    throw error;
  }
}

/** End whatever runs in a guest besides its agent. */
export async function endOthers(vm: Vm): Promise<void> {
  for (const { id, running } of await listStreams(vm.transport)) {
    // One that has just ended needs no signal.
    if (running) await signalStream(vm.transport, id, "KILL", true).catch(() => undefined);
  }
}
