/** Lines that a container is to have in files of its guest's agent: names of hosts, how names are looked up. */
import { Readable } from "node:stream";
import { guestErrno } from "../agent/transport.ts";
import type { Vm } from "../client/vm.ts";
import { VmsanError } from "../model/errors.ts";

/** Largest file that lines are added to, in bytes. */
const MAX_BYTES = 1 << 20;

function tooLong(path: string): VmsanError {
  return new VmsanError({
    code: "ERR_AGENT_FILE",
    message: `Cannot add to ${path} in the guest`,
    why: `It is longer than ${MAX_BYTES} bytes.`,
    fix: "Shorten it in the guest.",
  });
}

/**
 * Have lines at the end of a file that the guest's agent has written; those that are there are not added again.
 * @throws ERR_AGENT_FILE for a file that the guest has made too long for any of this
 */
export async function addLines(vm: Vm, path: string, lines: readonly string[]): Promise<void> {
  // Of the fake driver's guests it is this host's file.
  if (lines.length === 0 || vm.view.driver === "fake") return;
  const now: Buffer[] = [];
  try {
    let length = 0;
    for await (const bytes of (await vm.openFile(path, {
      user: "root",
    })) as AsyncIterable<Buffer>) {
      length += bytes.length;
      if (length > MAX_BYTES) throw tooLong(path);
      now.push(Buffer.from(bytes));
    }
  } catch (error) {
    // Without a network there is no name server, and no file for it.
    if (guestErrno(error) === "ENOENT") return;
    throw error;
  }
  const text = Buffer.concat(now).toString("latin1");
  const missing = lines.filter((line) => !text.split("\n").includes(line));
  if (missing.length === 0) return;
  const whole = Buffer.from(
    `${text}${text === "" || text.endsWith("\n") ? "" : "\n"}${missing.join("\n")}\n`,
    "latin1",
  );
  await vm.writeFile(path, Readable.from([whole]), { user: "root", inPlace: true });
}
