/** How what is true of a pod changes, from its binding to its end. */
import type { Vm } from "../../../client/vm.ts";
import { seconds } from "./state.ts";
import type { PodState, Termination } from "./state.ts";

/** Why something is so, in a word and a sentence. */
export interface Reason {
  reason: string;
  message: string;
}

/** A pod that is taken up. @param startTime when that was, where this node has done so before */
export function takenUp(restarts: number, startTime: string | null | undefined): PodState {
  return {
    phase: "Pending",
    startTime: startTime ?? seconds(),
    restarts,
    started: false,
    ready: false,
    imageID: "",
  };
}

/**
 * Its command runs.
 * @param stream of the command in its guest
 * @param startedAt when it was started, as its record has it
 * @returns since when, RFC 3339
 */
export function toRunning(
  state: PodState,
  vm: Vm,
  stream: string,
  startedAt: string | undefined,
): string {
  const since = seconds(new Date(startedAt ?? Date.now()));
  const { image } = vm.view;
  delete state.waiting;
  delete state.terminated;
  state.phase = "Running";
  state.running = { startedAt: since };
  state.containerID = `vmsan://${vm.id}.${stream}`;
  state.imageID = image === undefined ? "" : `${image.name}@${image.digest}`;
  return since;
}

/** Its command has ended. */
export function toEnded(state: PodState, terminated: Termination): void {
  delete state.running;
  delete state.waiting;
  state.terminated = terminated;
  state.ready = false;
  state.started = false;
}

/** It is to run again: how its command has ended is how it ended the last time. */
export function toLast(state: PodState): void {
  if (state.terminated !== undefined) state.last = state.terminated;
  delete state.terminated;
}

/** It has ended for good. @param verdict why, when that is not its command's doing */
export function toOver(
  state: PodState,
  phase: "Succeeded" | "Failed",
  verdict: Reason | undefined,
): void {
  state.phase = phase;
  Object.assign(state, verdict);
  state.ready = false;
  if (state.running === undefined) return;
  delete state.running;
  state.terminated = { exitCode: 137, reason: "Error", finishedAt: seconds() };
}
