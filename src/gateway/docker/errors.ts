/**
 * docker/: what the docker command line, compose and other clients of the Docker Engine API send, answered
 * with microVMs: each container is one. Takes HTTP over a unix socket or TCP in face.ts, by tables of
 * routes; containers/ (lives, commands, files), logs/, images/, networks and volumes below.
 *
 * errors.ts: failures as those clients read them: a status, and one sentence.
 */
import { asVmsanError } from "../../model/errors.ts";
import type { VmsanError } from "../../model/errors.ts";
import { statusOf } from "../../http/reply.ts";

/** A refusal in the engine's terms. */
export class DockerError extends Error {
  readonly status: number;

  constructor(status: number, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.status = status;
  }
}

/** What a container cannot do because it is a microVM. */
export function refused(what: string, why: string): DockerError {
  return new DockerError(400, `${what} is not possible: ${why}`);
}

/** One line of what failed and why, and what to do. */
export function sentence({ message, why, fix }: VmsanError): string {
  const rest = [why, fix].filter((part) => part !== undefined && part !== "");
  if (rest.length === 0) return message;
  // What the guest's agent says ends with a point, and its reason is the system's words without one.
  const [first = "", ...others] = rest;
  const reason = others.length === 0 || /[.!?]$/.test(first) ? first : `${first}.`;
  return `${message.replace(/\.$/, "")}: ${[reason, ...others].join(" ")}`;
}

/** Anything thrown, in the engine's terms. */
export function asDockerError(error: unknown): DockerError {
  if (error instanceof DockerError) return error;
  const known = asVmsanError(error, "The request failed");
  return new DockerError(statusOf(known.code), sentence(known), error);
}

/** Why a command could not be started, and the status that shells give it. */
export function startFailure(error: unknown, word: string): { code: number; message: string } {
  const known = asVmsanError(error, "The command failed");
  const runc = "OCI runtime create failed: unable to start container process: exec";
  const quoted = JSON.stringify(word);
  switch (known.code) {
    case "ERR_AGENT_NOT_FOUND": {
      const what = word.includes("/")
        ? `stat ${word}: no such file or directory`
        : "executable file not found in $PATH";
      return { code: 127, message: `${runc}: ${quoted}: ${what}` };
    }
    case "ERR_AGENT_NOT_EXECUTABLE":
      return { code: 126, message: `${runc}: ${quoted}: permission denied` };
    default:
      return { code: 126, message: sentence(known) };
  }
}
