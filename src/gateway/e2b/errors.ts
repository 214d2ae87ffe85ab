/**
 * e2b/: what E2B's SDKs and command line send, answered for VMs. Takes their control plane (sandboxes,
 * templates …) in control/ and the data plane of each sandbox (processes, files) in envd/; unmodified
 * clients are the judges.
 *
 * errors.ts: failures in the two forms that those clients read.
 */
import { guestErrno } from "../../agent/transport.ts";
import { asVmsanError } from "../../model/errors.ts";
import type { VmsanError } from "../../model/errors.ts";
import { statusOf } from "../../http/reply.ts";

/** Codes of the Connect protocol with the status of a unary reply. */
const CONNECT_STATUS = {
  invalid_argument: 400,
  failed_precondition: 400,
  unauthenticated: 401,
  permission_denied: 403,
  not_found: 404,
  already_exists: 409,
  resource_exhausted: 429,
  canceled: 499,
  unimplemented: 501,
  unavailable: 503,
  deadline_exceeded: 504,
  internal: 500,
} as const;

/** A code of the Connect protocol. */
export type ConnectCode = keyof typeof CONNECT_STATUS;

/** A refusal in E2B's terms. */
export class E2bError extends Error {
  readonly code: ConnectCode;
  /** Of a plain reply, where it is not the code's own. */
  readonly status: number;

  constructor(code: ConnectCode, message: string, status: number = CONNECT_STATUS[code]) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/** One line of what failed and why. */
function sentence(error: VmsanError): string {
  return error.why === undefined ? error.message : `${error.message}: ${error.why}`;
}

const BY_ERRNO: Record<string, ConnectCode> = {
  ENOENT: "not_found",
  EEXIST: "already_exists",
  ENOTEMPTY: "already_exists",
  EISDIR: "invalid_argument",
  ENOTDIR: "invalid_argument",
  EACCES: "permission_denied",
  EPERM: "permission_denied",
  ENOSPC: "resource_exhausted",
  EDQUOT: "resource_exhausted",
};

const BY_STATUS: Record<number, ConnectCode> = {
  400: "invalid_argument",
  401: "unauthenticated",
  403: "permission_denied",
  404: "not_found",
  409: "already_exists",
  429: "resource_exhausted",
};

/** Anything thrown, in E2B's terms. */
export function asE2bError(error: unknown): E2bError {
  if (error instanceof E2bError) return error;
  const known = asVmsanError(error, "The request failed");
  // What else would be said of a missing directory is that the command was not found.
  if (known.code === "ERR_AGENT_WORKDIR") return new E2bError("invalid_argument", sentence(known));
  const errno = guestErrno(known);
  const full = errno === "ENOSPC" || errno === "EDQUOT";
  if (full) return new E2bError("resource_exhausted", sentence(known), 507);
  const byErrno = errno === undefined ? undefined : BY_ERRNO[errno];
  if (byErrno !== undefined) return new E2bError(byErrno, sentence(known));
  switch (known.code) {
    case "ERR_CLUSTER_UNSUPPORTED":
      return new E2bError("unimplemented", sentence(known), 400);
    case "ERR_AGENT_USER":
      return new E2bError("unauthenticated", sentence(known));
    case "ERR_AGENT_STREAM_NOT_FOUND":
      return new E2bError("not_found", sentence(known));
    case "ERR_SNAPSHOT_VOLUME":
      return new E2bError("failed_precondition", sentence(known), 409);
    case "ERR_AGENT_UNREACHABLE":
    case "ERR_AGENT_CLOSED":
      return new E2bError("unavailable", sentence(known));
    default:
      break;
  }
  if (/_NOT_(RUNNING|STOPPED)$/.test(known.code))
    return new E2bError("failed_precondition", sentence(known), 409);
  return new E2bError(BY_STATUS[statusOf(known.code)] ?? "internal", sentence(known));
}
