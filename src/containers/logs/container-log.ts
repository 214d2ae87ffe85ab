/**
 * One container's log: entries are added at the end of numbered files, the oldest of which go. The first is made for the first output:
 * files are the dearest of what a container takes, and many print nothing.
 */
import { mkdirSync, readdirSync } from "node:fs";
import { readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { errnoOf } from "../../model/errors.ts";
import { HEADER, decodeHeader, encodeHeader } from "./entry.ts";
import type { EntryKind, Offsets } from "./entry.ts";
import { LogFile } from "./log-file.ts";

/** How much is kept. */
export interface LogLimits {
  /** Bytes of one file. */
  fileBytes: number;
  /** Number of files. */
  files: number;
}

/** 256 MiB. */
export const DEFAULT_LIMITS: LogLimits = { fileBytes: 4 << 20, files: 64 };

interface Queued {
  kind: Exclude<EntryKind, "mark">;
  /** Where its output stands behind it. */
  end: number;
  buffers: Buffer[];
  bytes: number;
  done: () => void;
}

/** Nanoseconds since the epoch, never twice the same. */
let lastNs = 0n;
function nowNs(): bigint {
  const now = BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
  lastNs = now > lastNs ? now : lastNs + 1n;
  return lastNs;
}

function numbersIn(names: readonly string[]): number[] {
  const numbers = names.filter((name) => /^\d+$/.test(name)).map(Number);
  return numbers.toSorted((a, b) => a - b);
}

/** Names in a log's directory; none when there is no log. */
function namesIn(dir: string): string[] {
  try {
    return readdirSync(dir);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Numbers of a log's files, oldest first; none when there is no log. */
export async function segmentsOf(dir: string): Promise<number[]> {
  try {
    return numbersIn(await readdir(dir));
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** Path of one of a log's files. */
export function segmentPath(dir: string, segment: number): string {
  return join(dir, String(segment));
}

/** A container's log, open for what the container prints. */
export class ContainerLog {
  readonly dir: string;
  private readonly limits: LogLimits;
  private readonly complain: (error: unknown) => void;
  private failing = false;
  private file: LogFile | undefined;
  /** There is no file yet: the first output makes it. */
  private unwritten = false;
  private segment = 0;
  private size = 0;
  private run = "0".repeat(16);
  private offsets: Offsets = { stdout: 0, stderr: 0 };
  /** As {@link offsets}, without what is queued. */
  private written: Offsets = { stdout: 0, stderr: 0 };
  private queue: Queued[] = [];
  private writing = false;
  private drained: Promise<void> = Promise.resolve();
  private waiters: (() => void)[] = [];
  private changes = 0;

  /**
   * @param dir absolute; its own
   * @param complain told once of an outage in which output is not written: it must not stop a container
   */
  constructor(
    dir: string,
    limits: LogLimits = DEFAULT_LIMITS,
    complain: (error: unknown) => void = () => undefined,
  ) {
    this.dir = dir;
    this.limits = limits;
    this.complain = complain;
  }

  /**
   * Go on with a command's output.
   * @param run its stream in the guest
   * @returns up to where it is known: 0 for one that is new
   */
  async begin(run: string): Promise<Offsets> {
    await this.close();
    this.run = run;
    this.segment = numbersIn(namesIn(this.dir)).at(-1) ?? 0;
    if (this.segment === 0) {
      this.unwritten = true;
      this.size = 0;
      this.offsets = { stdout: 0, stderr: 0 };
      this.written = { stdout: 0, stderr: 0 };
      return { stdout: 0, stderr: 0 };
    }
    const file = new LogFile(segmentPath(this.dir, this.segment));
    this.file = file;
    const { size, known } = this.recover(file, run);
    this.size = size;
    this.offsets = { ...known };
    this.written = { ...known };
    if (known.stdout === 0 && known.stderr === 0) this.size += this.mark(file);
    return { ...known };
  }

  /** Make the next file, with what it needs to know; nothing has changed when that fails. */
  private async next(): Promise<void> {
    const path = segmentPath(this.dir, this.segment + 1);
    const file = new LogFile(path);
    try {
      this.size = this.mark(file);
    } catch (error) {
      // What comes next tries it again.
      await file.close();
      await rm(path, { force: true });
      throw error;
    }
    this.file = file;
    this.segment += 1;
  }

  /** What a file holds of a command; what a killed writer has left half is cut off. */
  private recover(file: LogFile, run: string): { size: number; known: Offsets } {
    const known: Offsets = { stdout: 0, stderr: 0 };
    const bytes = file.read();
    const total = bytes.length;
    let at = 0;
    while (at + HEADER <= total) {
      const header = decodeHeader(bytes, at);
      if (header === undefined || at + HEADER + header.length > total) break;
      const { kind, length, offset } = header;
      if (header.run === run) {
        if (kind === "mark") {
          known.stdout = offset;
          known.stderr = Number(bytes.readBigUInt64BE(at + HEADER));
        } else known[kind] = offset + length;
      }
      at += HEADER + length;
    }
    if (at < total) file.truncate(at);
    return { size: at, known };
  }

  /** What the file that begins here needs to know of those before it. @returns its bytes */
  private mark(file: LogFile): number {
    const before = Buffer.alloc(8);
    before.writeBigUInt64BE(BigInt(this.written.stderr));
    const header = encodeHeader({
      kind: "mark",
      length: before.length,
      timeNs: nowNs(),
      offset: this.written.stdout,
      run: this.run,
    });
    const bytes = Buffer.concat([header, before]);
    file.begin(bytes);
    return bytes.length;
  }

  /** Take what was printed; resolves once it is in the file, or cannot be. */
  async append(kind: Exclude<EntryKind, "mark">, bytes: Buffer): Promise<void> {
    const header = encodeHeader({
      kind,
      length: bytes.length,
      timeNs: nowNs(),
      offset: this.offsets[kind],
      run: this.run,
    });
    this.offsets[kind] += bytes.length;
    await new Promise<void>((done) => {
      const end = this.offsets[kind];
      const size = HEADER + bytes.length;
      this.queue.push({ kind, end, buffers: [header, bytes], bytes: size, done });
      if (!this.writing) this.drained = this.drain();
    });
  }

  /** The guest has lost what was before an offset. */
  skip(kind: Exclude<EntryKind, "mark">, to: number): void {
    this.offsets[kind] = Math.max(this.offsets[kind], to);
    this.written[kind] = Math.max(this.written[kind], to);
  }

  private async drain(): Promise<void> {
    this.writing = true;
    while (this.queue.length > 0) {
      const batch = this.queue;
      this.queue = [];
      try {
        if (this.unwritten) await this.beginFirst();
        else if (this.size >= this.limits.fileBytes) await this.turn();
        await this.file?.append(Buffer.concat(batch.flatMap(({ buffers }) => buffers)));
        this.size += batch.reduce((sum, { bytes }) => sum + bytes, 0);
        for (const { kind, end } of batch) this.written[kind] = end;
        this.failing = false;
      } catch (error) {
        await this.failed(error);
      }
      for (const { done } of batch) done();
      this.wake();
    }
    this.writing = false;
  }

  /** What was written in part must not stand before what follows. */
  private async failed(error: unknown): Promise<void> {
    if (!this.failing) this.complain(error);
    this.failing = true;
    try {
      this.file?.truncate(this.size);
    } catch (again) {
      this.complain(again);
    }
  }

  private async beginFirst(): Promise<void> {
    mkdirSync(this.dir, { recursive: true, mode: 0o700 });
    await this.next();
    this.unwritten = false;
  }

  /** Begin the next file; the oldest goes. One that is closed begins none, and who closes it meanwhile closes the new one. */
  private async turn(): Promise<void> {
    const { file } = this;
    if (file === undefined) return;
    await this.next();
    await file.close();
    const oldest = this.segment - this.limits.files;
    for (const number of await segmentsOf(this.dir)) {
      if (number <= oldest) await rm(segmentPath(this.dir, number), { force: true });
    }
  }

  /** Counts changes: taken before a look, it tells {@link changed} what the look has missed. */
  get version(): number {
    return this.changes;
  }

  /** Resolves once there was a change after that version, or the log was woken. */
  async changed(version: number): Promise<void> {
    if (version !== this.changes) return;
    await new Promise<void>((resolve) => this.waiters.push(resolve));
  }

  /** Have all readers look again: also when the command has ended. */
  wake(): void {
    this.changes += 1;
    for (const resolve of this.waiters.splice(0)) resolve();
  }

  /** Close the file, behind what has been taken: of a VM that dies it is the last words. Readers go on. */
  async close(): Promise<void> {
    while (this.writing) await this.drained;
    const { file } = this;
    this.file = undefined;
    this.unwritten = false;
    await file?.close();
  }

  /** Bytes on disk. */
  async bytes(): Promise<number> {
    let total = 0;
    for (const number of await segmentsOf(this.dir)) {
      total += (await stat(segmentPath(this.dir, number))).size;
    }
    return total;
  }
}
