/**
 * One blob from the store to a registry: not sent when it is there, taken over from another
 * repository of the same registry when that has it, else sent in one piece or, when it is large,
 * in pieces, so that a broken connection costs one piece.
 */
import { open } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import type { Digest } from "../../model/image.ts";
import type { ProgressSink } from "../../model/progress.ts";
import { messageOf } from "../../model/errors.ts";
import type { Descriptor } from "../../schema/oci.ts";
import { PullFailure, safeUrl } from "../http/failure.ts";
import type { Answer, StreamedBody } from "../http/transport.ts";
import { shortDigest } from "./download.ts";
import { Retry } from "./retry.ts";
import type { RetryLimits } from "./retry.ts";
import type { Session } from "./session.ts";

/** Bytes from which a blob is sent in pieces of this size; most registries want at least 5 MiB. */
const PIECE = 64 << 20;
/** Bytes read at once. */
const READ = 1 << 20;
/** Milliseconds between two progress events of a blob. */
const REPORT_EVERY = 100;
/** Milliseconds that a registry has to forget an upload that is given up. */
const FORGET_MS = 2000;
/** Most of an answer's body that is of no interest, in bytes. */
const ANSWER_LIMIT = 64 << 10;

/** What an upload needs. */
export interface UploadContext {
  session: Session;
  /** Where the blob's content is. */
  path: string;
  /** Repositories of the same registry that may have it, each with a session that may read there. */
  sources: readonly { repository: string; session: Session }[];
  limits: RetryLimits;
  /** Default {@link PIECE}. */
  pieceBytes?: number;
  onProgress?: ProgressSink;
  signal?: AbortSignal;
}

/** How a blob came to be in the repository. */
export type Uploaded = "present" | "mounted" | "sent";

/** What every request gets: the signal, if there is one. */
function withSignal(context: UploadContext): { signal?: AbortSignal } {
  return context.signal === undefined ? {} : { signal: context.signal };
}

/** Take an answer's body and forget it, so that its connection can be used again. */
async function settle(answer: Answer, signal?: AbortSignal): Promise<Answer> {
  await answer.read(ANSWER_LIMIT, signal);
  return answer;
}

/**
 * Begin an upload. What is given up meanwhile has {@link FORGET_MS} more for the registry's answer: an upload
 * whose address nobody has learnt could not be forgotten.
 */
async function begin(context: UploadContext): Promise<URL> {
  const { session, signal } = context;
  signal?.throwIfAborted();
  const late = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const giveUp = (): void => {
    timer = setTimeout(() => late.abort(signal?.reason), FORGET_MS);
  };
  signal?.addEventListener("abort", giveUp, { once: true });
  try {
    const answer = await session.send("blobs/uploads/", {
      method: "POST",
      accept: [202],
      signal: late.signal,
    });
    await settle(answer, late.signal);
    return session.locationOf(answer);
  } finally {
    signal?.removeEventListener("abort", giveUp);
    clearTimeout(timer);
  }
}

/** Whether the repository has the blob already. */
async function isPresent(descriptor: Descriptor, context: UploadContext): Promise<boolean> {
  const answer = await context.session.send(`blobs/${descriptor.digest}`, {
    method: "HEAD",
    accept: [200, 404],
    ...withSignal(context),
  });
  await settle(answer, context.signal);
  return answer.status === 200;
}

/** Have the registry take the blob over from another of its repositories. */
async function mount(descriptor: Descriptor, context: UploadContext): Promise<boolean> {
  for (const { repository, session } of context.sources) {
    try {
      const query = new URLSearchParams({ mount: descriptor.digest, from: repository });
      const answer = await session.send(`blobs/uploads/?${String(query)}`, {
        method: "POST",
        accept: [201, 202],
        ...withSignal(context),
      });
      await settle(answer, context.signal);
      if (answer.status === 201) return true;
      // It has begun an upload instead.
      await forget(session.locationOf(answer), context);
    } catch (error) {
      // Not allowed to read there, or no such thing: it is sent as it would be without.
      context.signal?.throwIfAborted();
      if (!(error instanceof PullFailure)) throw error;
      const why = error.why ?? messageOf(error);
      context.onProgress?.({ phase: "push", message: `not taken from ${repository}: ${why}` });
    }
  }
  return false;
}

/** Let the registry forget an upload; if it does not, it does so by itself some day. */
async function forget(location: URL, context: UploadContext): Promise<void> {
  try {
    const answer = await context.session.send(location, {
      method: "DELETE",
      accept: [200, 202, 204, 404, 405],
      signal: AbortSignal.timeout(FORGET_MS),
    });
    answer.discard();
  } catch {
    // Any failure: what matters is told by whoever gives up.
  }
}

/** Part of a file as a request's body. */
function bodyOf(
  handle: FileHandle,
  from: number,
  size: number,
  onSent: (end: number) => void,
): StreamedBody {
  return {
    size,
    send: async (write) => {
      const buffers = [Buffer.allocUnsafe(READ), Buffer.allocUnsafe(READ)];
      let writing: Promise<void> = Promise.resolve();
      for (let at = 0, turn = 0; at < size; turn += 1) {
        const buffer = buffers[turn % 2] ?? Buffer.alloc(0);
        const wanted = Math.min(buffer.length, size - at);
        const { bytesRead } = await handle.read(buffer, 0, wanted, from + at);
        if (bytesRead === 0) throw new Error("The blob's file has become shorter");
        await writing;
        at += bytesRead;
        writing = write(buffer.subarray(0, bytesRead)).then(() => onSent(from + at));
        // Awaited in the next turn; a failure meanwhile is not a second one.
        writing.catch(() => undefined);
      }
      await writing;
    },
  };
}

/** An upload under way. */
interface Upload {
  location: URL;
  /** Bytes that the registry has. */
  offset: number;
}

/** The address that ends an upload. */
function finalAddress(location: URL, digest: Digest): URL {
  const url = new URL(location);
  url.searchParams.set("digest", digest);
  return url;
}

/** Where an upload stands, by a Range header `0-LAST`; undefined when it does not say. */
function offsetOf(answer: Answer): number | undefined {
  const last = /^(?:bytes=)?0-(\d{1,15})$/.exec(answer.headers["range"] ?? "")?.[1];
  return last === undefined ? undefined : Number(last) + 1;
}

/** One blob being sent. */
class Sending {
  readonly #descriptor: Descriptor;
  readonly #context: UploadContext;
  readonly #handle: FileHandle;
  readonly #retry: Retry;
  #upload: Upload | undefined;
  #reported = 0;
  /** In pieces, or in one request; the other way when a server does not take the first. */
  #pieces: boolean;
  #changed = false;
  #asked = false;

  constructor(descriptor: Descriptor, context: UploadContext, handle: FileHandle) {
    this.#descriptor = descriptor;
    this.#context = context;
    this.#handle = handle;
    this.#retry = new Retry(context.limits, context.signal);
    this.#pieces = descriptor.size > this.#pieceBytes;
  }

  get #pieceBytes(): number {
    return this.#context.pieceBytes ?? PIECE;
  }

  /** Send it, trying again as often as the limits allow. */
  async run(): Promise<void> {
    const { onProgress } = this.#context;
    for (;;) {
      try {
        const upload = await this.#begin();
        if (this.#pieces) await this.#sendPieces(upload);
        else await this.#sendWhole(upload);
        return;
      } catch (error) {
        if (await this.#otherWay(error)) continue;
        try {
          await this.#retry.wait(error, (why, ms) =>
            onProgress?.({
              phase: "push",
              message: `${why} Trying again in ${(ms / 1000).toFixed(1)} s.`,
            }),
          );
        } catch (last) {
          if (this.#upload !== undefined) await forget(this.#upload.location, this.#context);
          throw last;
        }
      }
    }
  }

  /**
   * After an answer that says "not so": ask where a piece should have begun, or try the other way
   * of sending; each once.
   */
  async #otherWay(error: unknown): Promise<boolean> {
    const status = error instanceof PullFailure ? error.details?.["status"] : undefined;
    if (status === 416 && this.#pieces && !this.#asked) {
      this.#asked = true;
      return true;
    }
    const refused = [400, 404, 405, 411, 413, 415, 416, 501].includes(Number(status));
    if (!refused || this.#changed || this.#upload === undefined) return false;
    await forget(this.#upload.location, this.#context);
    this.#upload = undefined;
    this.#changed = true;
    this.#pieces = !this.#pieces;
    return true;
  }

  /** The upload to go on with: the one under way as far as the registry knows it, or a new one. */
  async #begin(): Promise<Upload> {
    const { session, signal } = this.#context;
    if (this.#upload !== undefined) {
      const { location } = this.#upload;
      this.#upload = undefined;
      let answer: Answer;
      try {
        answer = await settle(
          await session.send(location, {
            method: "GET",
            accept: [200, 204, 400, 404, 405, 416],
            ...withSignal(this.#context),
          }),
          signal,
        );
      } catch (error) {
        await forget(location, this.#context);
        throw error;
      }
      const offset = offsetOf(answer);
      if (answer.status === 204 && offset !== undefined && this.#pieces) {
        const next =
          answer.headers["location"] === undefined ? location : session.locationOf(answer);
        // Docker's registry says 0-0 of an empty upload, too: one byte is not worth the doubt.
        if (offset > 1) return (this.#upload = { location: next, offset });
      }
      await forget(location, this.#context);
    }
    this.#upload = { location: await begin(this.#context), offset: 0 };
    return this.#upload;
  }

  #report(end: number): void {
    const now = Date.now();
    const { size, digest } = this.#descriptor;
    // The whole is reported once the registry has confirmed it.
    if (now - this.#reported < REPORT_EVERY || end >= size) return;
    this.#reported = now;
    this.#context.onProgress?.({
      phase: "push",
      item: shortDigest(digest),
      done: end,
      total: size,
      unit: "bytes",
    });
  }

  /** Everything in the request that ends the upload. */
  async #sendWhole(upload: Upload): Promise<void> {
    const { size } = this.#descriptor;
    const body = bodyOf(this.#handle, 0, size, (end) => this.#report(end));
    await this.#finish(upload, body);
  }

  /** A request for each piece, and one that ends the upload. */
  async #sendPieces(upload: Upload): Promise<void> {
    const { session, signal } = this.#context;
    const { size } = this.#descriptor;
    while (upload.offset < size) {
      const from = upload.offset;
      const length = Math.min(this.#pieceBytes, size - from);
      const answer = await session.send(upload.location, {
        method: "PATCH",
        accept: [202],
        headers: {
          "content-type": "application/octet-stream",
          "content-range": `${from}-${from + length - 1}`,
        },
        body: bodyOf(this.#handle, from, length, (end) => this.#report(end)),
        ...withSignal(this.#context),
      });
      await settle(answer, signal);
      if (answer.headers["location"] !== undefined) upload.location = session.locationOf(answer);
      // What the registry says it has is what counts; it may have taken less.
      const said = offsetOf(answer) ?? from + length;
      if (said <= from || said > from + length) throw lostCount(answer.url, from + length, said);
      upload.offset = said;
      this.#retry.progress();
    }
    await this.#finish(upload, "");
  }

  async #finish(upload: Upload, body: StreamedBody | ""): Promise<void> {
    const { session, signal } = this.#context;
    const answer = await session.send(finalAddress(upload.location, this.#descriptor.digest), {
      method: "PUT",
      accept: [201, 204],
      headers: { "content-type": "application/octet-stream" },
      body,
      ...withSignal(this.#context),
    });
    await settle(answer, signal);
    this.#upload = undefined;
    const stored = answer.headers["docker-content-digest"];
    if (stored !== undefined && stored !== this.#descriptor.digest) {
      throw new PullFailure(
        {
          code: "ERR_IMAGE_DIGEST",
          message: `Cannot push to ${safeUrl(answer.url)}`,
          why: `What was sent as ${this.#descriptor.digest} arrived as ${stored}.`,
          fix: "Push again; if it stays so, something on the way to the registry changes the content.",
        },
        false,
      );
    }
  }
}

/** The error for a registry that counts in another way than it was sent to. */
function lostCount(url: URL, sent: number, said: number): PullFailure {
  return new PullFailure(
    {
      code: "ERR_IMAGE_REGISTRY",
      message: `Cannot push to ${safeUrl(url)}`,
      why: `It says to have ${said} bytes of an upload where ${sent} were sent.`,
      fix: "Push again; tell the registry's operator if it stays so.",
    },
    true,
  );
}

/** Have a blob in the repository. @returns how it came there. Throws PullFailure. */
export async function uploadBlob(
  descriptor: Descriptor,
  context: UploadContext,
): Promise<Uploaded> {
  const { onProgress, limits, signal } = context;
  const retry = new Retry(limits, signal);
  let how: Uploaded | undefined;
  while (how === undefined) {
    try {
      if (await isPresent(descriptor, context)) how = "present";
      else if (await mount(descriptor, context)) how = "mounted";
      else break;
    } catch (error) {
      await retry.wait(error, (why, ms) =>
        onProgress?.({
          phase: "push",
          message: `${why} Trying again in ${(ms / 1000).toFixed(1)} s.`,
        }),
      );
    }
  }
  if (how === undefined) {
    await using handle = await open(context.path, "r");
    await new Sending(descriptor, context, handle).run();
    how = "sent";
  }
  onProgress?.({
    phase: "push",
    item: shortDigest(descriptor.digest),
    done: descriptor.size,
    total: descriptor.size,
    unit: "bytes",
  });
  return how;
}
