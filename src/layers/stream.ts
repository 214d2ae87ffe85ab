/**
 * layers/: layer blobs become one merged tree.
 *
 * Takes verified-while-read streams of tar archives, gives the tree, each file's content handed to
 * a store on the way. Layers are read top-down, so that content which an upper layer hides is never
 * stored; the tree itself is then built bottom-up from the remembered entries, which is what the
 * OCI image spec describes. Where the guess by path left out content that the tree needs after all
 * (a hard link to a hidden file, say), those layers are read once more.
 */
import { ROOT, type FileTree } from "../util/file-tree/file-tree.ts";
import type { LayerBlob } from "../model/image.ts";
import type { ByteSource } from "./byte-source.ts";
import { DigestedSource } from "./digested-source.ts";
import { Entries, ENTRY, type LayerEntries } from "./entry.ts";
import { causeOf, layerError, tooMany } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";
import { mergeLayers } from "./merge.ts";
import { cleanPath } from "./path.ts";
import { MARK } from "./places.ts";
import type { DataSink } from "./tar/blocks.ts";
import { TarReader, type TarEntry } from "./tar/reader.ts";

/** Where contents go, one file after the other. A content is a number ≥ 0; 0 has no bytes but zeros. */
export interface ContentStore {
  begin(size: number): void;
  write(offset: number, chunk: Buffer, from: number, to: number): void;
  end(): number;
  /** This content is not in the tree after all. */
  release(content: number): void;
}

/** What reading needs from outside. */
export interface StreamContext {
  store: ContentStore;
  limits: LayerLimits;
  /** The uncompressed archive of a layer, 0 being the lowest; asked for top-down. */
  open(layer: number): ByteSource;
  /** More layers are read than there are: this one again. */
  reopen(layer: number): ByteSource;
}

/** A merged image. */
export interface MergedImage {
  tree: FileTree;
  /** Entries of all layers. */
  layerEntries: number;
  /** Entries whose name another entry, or a whiteout, took out of the tree again. */
  droppedEntries: number;
  /** Bytes of all archives. */
  archiveBytes: number;
  /** Layers that had to be read a second time. */
  rereadLayers: number;
  /** Seconds spent reading, and merging. */
  seconds: { read: number; merge: number };
}

/** What has been read of all layers. */
interface Counts {
  entries: number;
  bytes: number;
  metadata: number;
}

/** Bytes of an entry that stay in memory. */
function metadataBytes({ path, link, xattrs }: TarEntry): number {
  let bytes = path.length + link.length;
  if (xattrs === undefined) return bytes;
  for (const [name, value] of xattrs) bytes += name.length + value.length;
  return bytes;
}

/** Read one archive, each entry handed on with the reader that gives its content; checked. */
function readArchive(
  source: ByteSource,
  blob: LayerBlob,
  limits: LayerLimits,
  counts: Counts,
  take: (header: TarEntry, reader: TarReader) => void,
): void {
  try {
    readEntries(source, blob, limits, counts, take);
  } catch (error) {
    // A damaged file is the likelier cause.
    throw causeOf(error, blob);
  }
}

/** What {@link readArchive} does while nothing is wrong. */
function readEntries(
  source: ByteSource,
  blob: LayerBlob,
  limits: LayerLimits,
  counts: Counts,
  take: (header: TarEntry, reader: TarReader) => void,
): void {
  const digested = new DigestedSource(source, (total) =>
    checkBytes(counts.bytes + total, total, blob, limits),
  );
  const reader = new TarReader(digested, limits);
  for (let header = reader.next(); header !== undefined; header = reader.next()) {
    if (++counts.entries > limits.entries) throw tooMany(`more than ${limits.entries} entries`);
    counts.metadata += metadataBytes(header);
    if (counts.metadata > limits.metadataBytes) {
      throw tooMany(`more than ${limits.metadataBytes} bytes of names and attributes`);
    }
    take(header, reader);
  }
  const diffId = digested.end();
  counts.bytes += digested.total;
  if (diffId !== blob.diffId) {
    throw layerError(
      "DIFF_ID",
      `Cannot use the layer ${blob.digest}`,
      `Its content has the digest ${diffId}; the image's configuration says ${blob.diffId}.`,
      "Pull the image again.",
    );
  }
}

/** Enforce the limits on uncompressed bytes. */
function checkBytes(all: number, own: number, blob: LayerBlob, limits: LayerLimits): void {
  if (all > limits.archiveBytes) throw tooMany(`more than ${limits.archiveBytes} bytes`);
  if (own > 2 ** 30 && own > blob.size * limits.expansion) {
    throw tooMany(`a blob that expands more than ${limits.expansion} times`);
  }
}

/** Reads the layers of one image. */
class ImageReader {
  readonly entries: Entries;
  readonly counts: Counts = { entries: 0, bytes: 0, metadata: 0 };
  private readonly context: StreamContext;
  private readonly sink: DataSink;

  constructor(context: StreamContext) {
    this.context = context;
    // One for all files.
    this.sink = (offset, chunk, from, to) => context.store.write(offset, chunk, from, to);
    this.entries = new Entries(context.limits);
  }

  /** Store the content of the entry that a reader stands at. */
  private store(header: TarEntry, reader: TarReader): number {
    const { store } = this.context;
    store.begin(header.size);
    reader.content(this.sink);
    return store.end();
  }

  /** Read a layer's entries, storing the content that no upper layer hides. */
  read(layer: number, blob: LayerBlob): LayerEntries {
    const { entries, context } = this;
    const { places, tree } = entries;
    const from = tree.count + 1;
    places.descend();
    readArchive(context.open(layer), blob, context.limits, this.counts, (header, reader) => {
      const found = entries.locate(header);
      if (found === undefined) return;
      const { act, place } = found;
      const node = entries.add(header, act, place);
      if (act === ENTRY.aside) entries.setContent(node, undefined);
      if (act !== ENTRY.make || header.kind !== "file") return;
      const before = entries.replaceFile(place, node);
      if (before >= from) this.drop(before);
      entries.setContent(node, places.hides(place) ? undefined : this.store(header, reader));
    });
    return { from, to: tree.count + 1 };
  }

  /** Give back a file's content that most likely nobody needs; if not, it is read again. */
  private drop(node: number): void {
    const content = this.entries.tree.contents[node] ?? 0;
    if (content === 0) return;
    this.context.store.release(content);
    this.entries.setContent(node, undefined);
  }

  /** Take in what a layer hides of those below, after it has been read. */
  cover({ from, to }: LayerEntries): void {
    const { entries, context } = this;
    const { places, tree } = entries;
    for (let node = from; node < to; node++) {
      const act = entries.act(node);
      if (act === ENTRY.aside) continue;
      const directory = act === ENTRY.make && tree.kind(node) === "directory";
      if (act === ENTRY.opaque) places.mark(entries.place(node), MARK.children);
      else places.mark(entries.place(node), directory ? MARK.entry : MARK.all);
      if (act === ENTRY.link) {
        places.mark(places.of(cleanPath(tree.target(node), context.limits)), MARK.needed);
      }
    }
  }

  /** Read a layer again for the contents of some of its nodes. */
  readAgain(layer: number, blob: LayerBlob, { from }: LayerEntries, wanted: Set<number>): void {
    const { entries, context } = this;
    const counts = { entries: 0, bytes: 0, metadata: 0 };
    let node = from;
    readArchive(context.reopen(layer), blob, context.limits, counts, (header, reader) => {
      if (entries.locate(header) === undefined) return;
      if (wanted.has(node)) entries.setContent(node, this.store(header, reader));
      node++;
    });
  }
}

/**
 * Read all layers and merge them.
 * @param layers bottom to top
 * Throws ERR_LAYER_* when an archive is malformed or is not what its digests say.
 */
export function mergeImage(layers: readonly LayerBlob[], context: StreamContext): MergedImage {
  const started = performance.now();
  const reader = new ImageReader(context);
  const all: LayerEntries[] = layers.map(() => ({ from: 0, to: 0 }));
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const blob = layers[layer];
    if (blob === undefined) continue;
    const entries = reader.read(layer, blob);
    if (layer > 0) reader.cover(entries);
    all[layer] = entries;
  }
  const { entries, counts } = reader;
  const layerEntries = counts.entries;
  const readAt = performance.now();
  const dropped = mergeLayers(entries, all, context.limits);
  const rereadLayers = settle(reader, all, layers, context);
  return {
    tree: entries.tree,
    layerEntries,
    droppedEntries: dropped,
    archiveBytes: counts.bytes,
    rereadLayers,
    seconds: {
      read: (readAt - started) / 1000,
      merge: (performance.now() - readAt) / 1000,
    },
  };
}

/** Fetch the content that is in the tree but was left out, and release what is not in the tree. */
function settle(
  reader: ImageReader,
  all: readonly LayerEntries[],
  layers: readonly LayerBlob[],
  context: StreamContext,
): number {
  const { entries } = reader;
  const { tree } = entries;
  const used = new Uint8Array(tree.count + 1);
  const missing: number[] = [];
  for (const node of tree.nodes()) {
    used[node] = 1;
    if (entries.lacks(node)) missing.push(node);
  }
  for (let node = ROOT; node <= tree.count; node++) {
    const content = tree.contents[node] ?? 0;
    if (content !== 0 && used[node] === 0) context.store.release(content);
  }
  let again = 0;
  // Highest first, as in the first reading: the same layers always give the same image.
  for (let layer = layers.length - 1; layer >= 0 && missing.length > 0; layer--) {
    const blob = layers[layer];
    const range = all[layer];
    if (blob === undefined || range === undefined) continue;
    const wanted = missing.filter((node) => node >= range.from && node < range.to);
    if (wanted.length === 0) continue;
    reader.readAgain(layer, blob, range, new Set(wanted));
    again++;
  }
  return again;
}
