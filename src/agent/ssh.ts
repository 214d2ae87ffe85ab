/** Servers of ssh in guests: the program is brought when it is first needed. */
import { createHash, createPrivateKey, createPublicKey } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { VmsanError, errnoOf } from "../model/errors.ts";
import { checkExit, feed } from "./file-stream.ts";
import { startStream } from "./streams.ts";
import type { GuestTransport } from "./transport.ts";

/** A private Ed25519 key in DER (RFC 8410) up to its 32 bytes. */
const PRIVATE_KEY = Buffer.from("302e020100300506032b657004220420", "hex");

/** Bytes with their length in front, as ssh writes them. */
function sshString(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** The public key of a seed of Ed25519, as files of known hosts have it. */
export function sshPublicKey(seed: Buffer): string {
  const secret = createPrivateKey({
    key: Buffer.concat([PRIVATE_KEY, seed]),
    format: "der",
    type: "pkcs8",
  });
  // The last 32 bytes of its DER are the key.
  const raw = createPublicKey(secret).export({ format: "der", type: "spki" }).subarray(-32);
  const type = "ssh-ed25519";
  return `${type} ${Buffer.concat([sshString(Buffer.from(type)), sshString(raw)]).toString("base64")}`;
}

/** The program, or why it is not there. */
async function readProgram(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    if (errnoOf(error) !== "ENOENT") throw error;
    throw new VmsanError(
      {
        code: "ERR_SSH_PROGRAM",
        message: "The program that serves ssh in guests is not there",
        why: `${path} has not been built.`,
        fix: "In a checkout run: npm run demo. Else install vmsan again.",
      },
      error,
    );
  }
}

/**
 * Make an agent ready for streams of kind ssh: it gets the VM's host key, and the program unless it has it.
 * @param seed of the host key
 * @param path of the program on this host
 */
export async function prepareSsh(
  transport: GuestTransport,
  seed: Buffer,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const program = await readProgram(path);
  const body = {
    hostKey: seed.toString("base64"),
    program: createHash("sha256").update(program).digest("hex"),
  };
  const ask = async (): Promise<{ program?: unknown }> =>
    await transport.request<{ program?: unknown }>("PUT", "/v1/ssh", { body, signal });
  if ((await ask()).program === true) return;
  const stream = startStream(transport, { kind: "program", stdin: true }, { signal });
  await feed(stream, Readable.from(pieces(program)));
  await checkExit(stream, "Cannot bring the server of ssh into the guest");
  if ((await ask()).program === true) return;
  throw new VmsanError({
    code: "ERR_SSH_PROGRAM",
    message: "The server of ssh did not arrive in the guest as it was sent",
    why: "The guest's agent has another one.",
    fix: "Try again; if it stays, stop and start the VM.",
  });
}

function* pieces(bytes: Buffer): Generator<Buffer> {
  const size = 256 << 10;
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}
