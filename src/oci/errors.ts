/** Errors of the image stage: one short way to make them. */
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";

/** A coded error; `cause` is the original, kept for logs. */
export function imageError(
  code: string,
  message: string,
  why: string,
  fix: string,
  cause?: unknown,
): VmsanError {
  return new VmsanError({ code, message, why, fix }, cause);
}

/** What a system error while writing to the store means to the user. */
export function storeError(error: unknown, action: string, dir: string): unknown {
  const errno = errnoOf(error);
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return imageError(
      "ERR_IMAGE_STORE_FULL",
      action,
      `The file system of ${dir} has no room left (${errno}).`,
      "Free space (`vmsan image prune` removes unused images) and try again.",
      error,
    );
  }
  if (errno === "EACCES" || errno === "EROFS" || errno === "EPERM") {
    return imageError(
      "ERR_IMAGE_STORE_ACCESS",
      action,
      messageOf(error),
      `Make ${dir} writable for this user, or set VMSAN_DIR to a directory that is.`,
      error,
    );
  }
  return error;
}
