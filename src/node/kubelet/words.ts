/** Errors in words: clients of the kubelet API are told one sentence. */
import { asVmsanError } from "../../model/errors.ts";

/** What went wrong and why. @param action said of what is no error of vmsan's, e.g. `Cannot run ls` */
export function wordsOf(error: unknown, action: string): string {
  const { message, why } = asVmsanError(error, action);
  return why === undefined ? message : `${message.replace(/\.$/, "")}: ${why}`;
}
