/** How a container has ended, as its pod's status tells it. */
import type { Vm } from "../../../client/vm.ts";
import type { RunEnd } from "../../../containers/run.ts";
import type { PodContainer } from "../../../schema/pod.ts";
import { terminationMessage } from "./guest.ts";
import type { PodLogOptions } from "../running.ts";
import { seconds } from "./state.ts";
import type { PodState, Termination } from "./state.ts";

/** Lines of a log that stand in for a message, and most bytes of them. */
const LOG_LINES = 80;
const LOG_BYTES = 2048;

/**
 * The end of a run in words.
 * @param state what was told of the pod until then
 * @param startedAt when the command was started, as its record has it
 */
export function terminationOf(
  end: RunEnd,
  state: Pick<PodState, "running" | "containerID">,
  startedAt: string | undefined,
): Termination {
  const reason = end.oomKilled ? "OOMKilled" : end.exitCode === 0 ? "Completed" : "Error";
  // One whose VM has ended, as a node finds it that is started again, has run.
  const neverRan = state.running === undefined && end.error !== "" && end.exitCode !== 137;
  const started = state.running?.startedAt ?? startedAt;
  return {
    exitCode: end.exitCode,
    reason: neverRan ? "StartError" : reason,
    ...(end.error === "" ? {} : { message: end.error }),
    ...(started === undefined ? {} : { startedAt: seconds(new Date(started)) }),
    finishedAt: seconds(),
    ...(state.containerID === undefined ? {} : { containerID: state.containerID }),
  };
}

/**
 * What a container has left to be read of its end: a file, else the end of its log where it wants that.
 * @returns undefined when there is nothing
 */
export async function lastWords(
  vm: Vm,
  { terminationMessagePath: path, terminationMessagePolicy: policy }: PodContainer,
  exitCode: number,
  logs: (options: PodLogOptions) => AsyncIterable<Uint8Array>,
): Promise<string | undefined> {
  if (!path) return undefined;
  const text = await terminationMessage(vm, path);
  if (text !== undefined || policy !== "FallbackToLogsOnError" || exitCode === 0) return text;
  const parts: Uint8Array[] = [];
  for await (const part of logs({ tailLines: LOG_LINES })) parts.push(part);
  const end = Buffer.concat(parts).subarray(-LOG_BYTES).toString("utf8");
  return end === "" ? undefined : end;
}
