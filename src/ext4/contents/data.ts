/**
 * ext4/contents/: what files hold, and where on the disk it lies.
 *
 * data.ts: file contents on their way to the disk: pieces at ascending offsets become blocks, and aligned
 * 64 KiB windows that are all zero, or that nothing was written to, become holes.
 */
import { VmsanError } from "../../model/errors.ts";
import { BLOCK_SIZE, MAX_EXTENT_BLOCKS } from "../constants.ts";
import { Contents } from "./contents.ts";
import { appendExtent, type Extents } from "./extent.ts";
import { WINDOW_SIZE, type BlockAppender } from "../image-file.ts";

const ZEROS = Buffer.alloc(WINDOW_SIZE);

/** Logical blocks have 32 bits. */
const MAX_FILE_BYTES = (2 ** 32 - 1) * BLOCK_SIZE;

/** The error for a file that ext4 cannot hold, be it all holes. */
function tooLarge(size: number): VmsanError {
  return new VmsanError({
    code: "ERR_DISK_FILE_SIZE",
    message: `Cannot store a file of ${size} bytes`,
    why: `Files on ext4 have at most ${MAX_FILE_BYTES} bytes.`,
    fix: "Use another image, or make the (sparse) file in it smaller.",
  });
}

/** Writes one file after the other. A file's content is a number; 0 is one without any blocks. */
export class DataWriter {
  /** Blocks given back by {@link release} and not used again: pairs of first block and count. */
  readonly freed: number[] = [];

  private readonly blocks: BlockAppender;
  private readonly contents = new Contents();
  /** Of the present file. */
  private extents: number[] = [];
  private size = 0;
  /** Number of the open window, −1 for none; bytes of it that are defined; where it is. */
  private window = -1;
  private filled = 0;
  private bytes: Buffer = ZEROS;
  private at = 0;
  /** A window for blocks that are used again: made when there are some. */
  private spare: Buffer | undefined;

  constructor(blocks: BlockAppender) {
    this.blocks = blocks;
  }

  /** Start a file of `size` bytes. Throws ERR_DISK_FILE_SIZE beyond what ext4 can map. */
  begin(size: number): void {
    if (size > MAX_FILE_BYTES) throw tooLarge(size);
    this.size = size;
    this.extents.length = 0;
    this.window = -1;
  }

  /**
   * Give content; offsets ascend, pieces do not overlap and stay inside the size.
   * @param offset in the file
   * @param chunk `chunk[from … to−1]` is copied; it may be reused afterwards
   */
  write(offset: number, chunk: Buffer, from: number, to: number): void {
    let source = from;
    let target = offset;
    while (source < to) {
      const number = Math.floor(target / WINDOW_SIZE);
      if (number !== this.window) this.openWindow(number);
      const inside = target - number * WINDOW_SIZE;
      if (inside > this.filled) this.zero(this.filled, inside);
      const count = Math.min(to - source, WINDOW_SIZE - inside);
      chunk.copy(this.bytes, this.at + inside, source, source + count);
      this.filled = inside + count;
      source += count;
      target += count;
    }
  }

  /** Finish the file. @returns its content's number */
  end(): number {
    this.closeWindow();
    this.window = -1;
    return this.contents.add(this.extents);
  }

  /** Where a content lies; valid until the next call. */
  extentsOf(content: number): Extents {
    return this.contents.of(content);
  }

  /** Give back the blocks of content that is not needed: further files may take them. */
  release(content: number): void {
    const extents = this.extentsOf(content);
    for (let i = 0; i < extents.length; i += 3) {
      this.freed.push(extents[i + 1] ?? 0, extents[i + 2] ?? 0);
    }
  }

  /** Fill a part of the open window with zeros. */
  private zero(from: number, to: number): void {
    ZEROS.copy(this.bytes, this.at + from, 0, to - from);
  }

  private openWindow(number: number): void {
    this.closeWindow();
    this.window = number;
    this.filled = 0;
    if (this.freed.length > 0) {
      this.bytes = this.spare ??= Buffer.allocUnsafeSlow(WINDOW_SIZE);
      this.at = 0;
    } else ({ bytes: this.bytes, at: this.at } = this.blocks.window());
  }

  private closeWindow(): void {
    if (this.window < 0) return;
    const { bytes, at, filled } = this;
    // Most content does not begin with a zero byte: one comparison settles it.
    if (bytes[at] === 0 && bytes.compare(ZEROS, 0, filled, at, at + filled) === 0) return;
    const length = Math.min(WINDOW_SIZE, this.size - this.window * WINDOW_SIZE);
    const blocks = Math.ceil(length / BLOCK_SIZE);
    this.zero(filled, blocks * BLOCK_SIZE);
    let logical = this.window * (WINDOW_SIZE / BLOCK_SIZE);
    if (bytes !== this.spare) {
      appendExtent(this.extents, logical, this.blocks.commit(blocks), blocks, MAX_EXTENT_BLOCKS);
      return;
    }
    for (let done = 0; done < blocks;) {
      const from = done * BLOCK_SIZE;
      const [block, count] = this.placeAgain(bytes.subarray(from, blocks * BLOCK_SIZE));
      appendExtent(this.extents, logical, block, count, MAX_EXTENT_BLOCKS);
      logical += count;
      done += count;
    }
  }

  /** Write the first of these blocks where others were, or behind all. @returns where, how many */
  private placeAgain(bytes: Buffer): [number, number] {
    const wanted = bytes.length / BLOCK_SIZE;
    const free = this.freed.pop();
    const first = this.freed.pop();
    if (free === undefined || first === undefined) {
      const room = this.blocks.window();
      room.bytes.set(bytes, room.at);
      return [this.blocks.commit(wanted), wanted];
    }
    const count = Math.min(free, wanted);
    if (free > count) this.freed.push(first + count, free - count);
    this.blocks.rewrite(first, bytes.subarray(0, count * BLOCK_SIZE));
    return [first, count];
  }
}
