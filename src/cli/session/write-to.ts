/** Outputs of a guest, written to those of this process. */

/**
 * Writes bytes as they are; waits while the reader is slow.
 * @param onGone called once when it cannot be written any more (the reader has left, the disk is
 *   full): the command has to be told, as a pipe would; lost-output.ts says it at the end
 */
export function writeTo(
  target: NodeJS.WriteStream,
  onGone: () => void,
): (chunk: Buffer) => Promise<void> | undefined {
  let wake = (): void => undefined;
  let gone = false;
  target.on("drain", () => wake());
  target.on("error", () => {
    if (!gone) onGone();
    gone = true;
    wake();
  });
  return (chunk) => {
    if (gone || target.write(chunk)) return undefined;
    return new Promise((resolve) => (wake = resolve));
  };
}
