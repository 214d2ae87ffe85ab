/** Words about traces, which must not be in the way of the work itself. */

/** Tell the user of what is in the way of traces, in one line. */
export function say(message: string): void {
  process.stderr.write(`vmsan: traces: ${message.slice(0, 300).replaceAll("\n", " ")}\n`);
}
