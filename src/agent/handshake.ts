/** RESET, which begins every session on a byte stream: protocol/README.md section 2. */
import { randomBytes } from "node:crypto";
import type { Duplex } from "node:stream";
import { VmsanError } from "../model/errors.ts";

const MAGIC = Buffer.from("VMSAN-CHANNEL-1\n", "ascii");

/** Whether the text is a channel token: 32 lower-case hex digits. */
export function isToken(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}

/** A new token for a VM. */
export function newToken(): string {
  return randomBytes(16).toString("hex");
}

/** The host's 48 bytes. */
export function encodeReset(token: Uint8Array, nonce: Uint8Array): Buffer {
  return Buffer.concat([MAGIC, token, nonce]);
}

/** What {@link handshake} takes. */
export interface HandshakeOptions {
  /** 16 bytes. */
  token: Uint8Array;
  /** 16 bytes; random unless a test says otherwise. */
  nonce?: Uint8Array;
  signal: AbortSignal;
  /** Milliseconds without an echo after which this attempt fails. */
  timeoutMs: number;
}

/**
 * Send RESET and throw input away until its echo has come. What came behind the echo is put
 * back, so that the next reader of the stream gets it. Destroys the stream when it fails.
 */
export async function handshake(stream: Duplex, options: HandshakeOptions): Promise<void> {
  const nonce = options.nonce ?? randomBytes(16);
  const expected = Buffer.concat([options.token, nonce]);
  let tail = Buffer.alloc(0);
  let clean = (): void => undefined;
  try {
    await new Promise<void>((resolve, reject) => {
      const onData = (chunk: Buffer): void => {
        const window = tail.length === 0 ? chunk : Buffer.concat([tail, chunk]);
        const at = window.indexOf(expected);
        if (at < 0) {
          tail = Buffer.from(window.subarray(-(expected.length - 1)));
          return;
        }
        clean();
        stream.pause();
        const rest = window.subarray(at + expected.length);
        if (rest.length > 0) stream.unshift(rest);
        resolve();
      };
      const onGone = (): void => {
        reject(
          new VmsanError({
            code: "ERR_AGENT_UNREACHABLE",
            message: "The connection to the guest's agent closed before the agent answered",
            why: "The VM ended, or its agent does not run.",
            fix: "See the VM's console: vmsan logs ID.",
          }),
        );
      };
      const onAbort = (): void => reject(options.signal.reason as Error);
      const timer = setTimeout(
        () =>
          reject(
            new VmsanError({
              code: "ERR_TIMEOUT_AGENT",
              message: `The guest's agent did not answer within ${options.timeoutMs} ms`,
              why: "The guest has not booted, or its agent does not run.",
              fix: "See the VM's console: vmsan logs ID.",
            }),
          ),
        options.timeoutMs,
      );
      clean = (): void => {
        clearTimeout(timer);
        options.signal.removeEventListener("abort", onAbort);
        stream.removeListener("data", onData);
        stream.removeListener("end", onGone);
        stream.removeListener("close", onGone);
        stream.removeListener("error", reject);
      };
      if (options.signal.aborted) onAbort();
      options.signal.addEventListener("abort", onAbort, { once: true });
      stream.on("data", onData);
      stream.on("end", onGone);
      stream.on("close", onGone);
      stream.on("error", reject);
      stream.write(encodeReset(options.token, nonce));
    });
  } catch (error) {
    clean();
    // A late ECONNRESET of a stream that is thrown away says nothing new.
    stream.on("error", () => undefined);
    stream.destroy();
    throw error;
  }
}
