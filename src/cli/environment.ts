/** Variables of this process that a command in a guest is to have. */
import { readFileSync } from "node:fs";
import { bytesOfText, holdsBytes, textOfBytes } from "../util/byte-text.ts";
import { stringsOf } from "./raw-words.ts";

/**
 * A variable of this process as it was given (util/byte-text.ts): Node.js makes U+FFFD of what is not
 * UTF-8. Undefined when there is none of that name.
 * @param given what the kernel has of the environment that the process was started with
 */
export function variableOf(
  name: string,
  env: Readonly<Record<string, string | undefined>>,
  given: () => Buffer = () => readFileSync("/proc/self/environ"),
): string | undefined {
  const decoded = env[name];
  if (!holdsBytes(name) && decoded?.includes("\uFFFD") !== true) return decoded;
  const start = bytesOfText(`${name}=`);
  const value = stringsOf(given())
    .find((entry) => entry.subarray(0, start.length).equals(start))
    ?.subarray(start.length);
  // What the process has changed since holds.
  const same = value !== undefined && (decoded === undefined || value.toString() === decoded);
  return same ? textOfBytes(value) : decoded;
}

/**
 * `-e NAME` as Docker has it: the value that this process has for it. A name that it has not
 * stays as it is, which takes the variable away from the command.
 */
export function withCallersValues(
  entries: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  return entries.map((entry) => {
    const value = entry.includes("=") ? undefined : variableOf(entry, env);
    return value === undefined ? entry : `${entry}=${value}`;
  });
}
