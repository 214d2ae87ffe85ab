/**
 * containers/: a container's main process, whoever asks for it (Docker's clients, a cluster): a detached
 * command in a VM that holds its output back until it is in a log on disk, so that whoever keeps it may be
 * killed and lose no byte. Takes the SDK's VMs; knows neither containers' documents nor pods.
 *
 * main.ts: started, found again, and what else runs there ended.
 */
import { listStreams, signalStream } from "../agent/commands.ts";
import type { StreamInfo } from "../agent/spec.ts";
import type { GuestStream, StreamOptions } from "../agent/streams.ts";
import type { ExecOptions } from "../client/guest/commands.ts";
import type { Vm } from "../client/vm.ts";
import { VmsanError } from "../model/errors.ts";

/** Bytes of output that wait in the guest for a keeper that is away. */
const RING_BYTES = 8 << 20;

/** How a main process is started. */
export type MainOptions = Pick<ExecOptions, "env" | "workdir" | "user" | "tty" | "stdin"> & {
  /** By which {@link findMain} knows it again. */
  label: string;
};

/** Start a main process: it goes on without its keeper, and its output waits for the next one. */
export function spawnMain(
  vm: Vm,
  argv: readonly string[],
  options: MainOptions,
  io: StreamOptions,
): GuestStream {
  return vm.spawn(argv, { ...options, detach: true, hold: true, ringBytes: RING_BYTES }, io);
}

/**
 * The stream of the main process that was started last with a label in a running VM.
 * @returns undefined when it is no more
 */
export async function findMain(
  vm: Vm,
  label: string,
  signal?: AbortSignal,
): Promise<StreamInfo | undefined> {
  const mine = (await listStreams(vm.transport, signal)).filter((stream) => stream.label === label);
  return mine.toSorted((a, b) => (a.startedAt < b.startedAt ? -1 : 1)).at(-1);
}

/** Whether there is no such VM. */
export function isLost(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND";
}

/** End whatever runs in a guest besides its agent. @param signal gives up waiting for the agent */
export async function endOthers(vm: Vm, signal?: AbortSignal): Promise<void> {
  for (const { id, running } of await listStreams(vm.transport, signal)) {
    // One that has just ended needs no signal.
    if (running) await signalStream(vm.transport, id, "KILL", true).catch(() => undefined);
  }
}
