/** Restart policies. */
import type { ContainerRecord, HostConfig } from "../../../../schema/docker.ts";

const FIRST_MS = 100;
const LONGEST_MS = 60_000;

/**
 * Milliseconds until a container that has ended is started again; undefined: it is not.
 * @param failures starts in a row that did not last
 */
export function restartDelay(record: ContainerRecord, failures: number): number | undefined {
  const { Name: name, MaximumRetryCount: most } =
    (record.hostConfig as HostConfig).RestartPolicy ?? {};
  if (record.stoppedByHand) return undefined;
  const wanted =
    name === "always" ||
    name === "unless-stopped" ||
    (name === "on-failure" && record.state.exitCode !== 0 && (!most || record.restartCount < most));
  return wanted ? Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(failures, 10)) : undefined;
}

/** Whether a container is started when the gateway starts. */
export function startsByItself(record: ContainerRecord): boolean {
  const name = (record.hostConfig as HostConfig).RestartPolicy?.Name;
  if (record.state.status === "created") return false;
  return name === "always" || (name === "unless-stopped" && !record.stoppedByHand);
}
