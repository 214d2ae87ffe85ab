/**
 * One file of a log. What is added is written asynchronously; the rest is not: each step takes microseconds, a turn of the
 * thread pool ten times that, and who holds many containers opens many logs.
 */
import {
  appendFile,
  closeSync,
  fstatSync,
  ftruncateSync,
  openSync,
  readSync,
  writeSync,
} from "node:fs";
import { promisify } from "node:util";

const appendAside = promisify(appendFile);

/** A file that is open for what is added at its end. */
export class LogFile {
  private readonly fd: number;
  private adding: Promise<void> = Promise.resolve();
  private closing: Promise<void> | undefined;

  /** @param path made when it is not there */
  constructor(path: string) {
    this.fd = openSync(path, "a+", 0o600);
  }

  /** All that is in it. */
  read(): Buffer {
    const bytes = Buffer.alloc(fstatSync(this.fd).size);
    let read = 0;
    while (read < bytes.length) {
      const got = readSync(this.fd, bytes, read, bytes.length - read, read);
      if (got === 0) break;
      read += got;
    }
    return bytes.subarray(0, read);
  }

  /** Add something before anything else is done. */
  begin(bytes: Buffer): void {
    for (let at = 0; at < bytes.length; at += writeSync(this.fd, bytes, at));
  }

  /** Add something; one after the other. */
  async append(bytes: Buffer): Promise<void> {
    const added = appendAside(this.fd, bytes);
    // Whoever closes the file waits for it, and not for its success.
    this.adding = added.catch(() => undefined);
    await added;
  }

  /** Have it end there. */
  truncate(size: number): void {
    ftruncateSync(this.fd, size);
  }

  /** Close it, behind what is being added; once, as its number may be another file's from then on. */
  async close(): Promise<void> {
    this.closing ??= this.adding.then(() => closeSync(this.fd));
    await this.closing;
  }
}
