/**
 * layers/: layer blobs become one merged tree.
 *
 * Takes verified-while-read streams of tar archives, gives the tree, each file's content handed to
 * a store on the way. Layers are read top-down, so that content which an upper layer hides is never
 * stored; the tree itself is then built bottom-up from the remembered entries, which is what the
 * OCI image spec describes. Where the guess by path left out content that the tree needs after all
 * (a hard link to a hidden file, say), those layers are read once more.
 */
import { VmsanError } from "../model/errors.ts";
import type { LayerBlob } from "../model/image.ts";
import type { ByteSource } from "./byte-source.ts";
import { Cover } from "./cover.ts";
import type { LayerEntries } from "./entry.ts";
import { layerError } from "./errors.ts";
import type { LayerLimits } from "./limits.ts";
import { mergeLayers, walkNodes } from "./merge.ts";
import { cleanPath, whiteoutOf, type Whiteout } from "./path.ts";
import { TarReader, type TarEntry } from "./tar/reader.ts";
import type { TreeNode } from "./tree.ts";

/** Where contents go, one file after the other. */
export interface ContentStore<Content> {
  begin(size: number): void;
  write(offset: number, chunk: Uint8Array, from: number, to: number): void;
  end(): Content;
  /** This content is not in the tree after all. */
  release(content: Content): void;
}

/** What reading needs from outside. */
export interface StreamContext<Content> {
  store: ContentStore<Content>;
  limits: LayerLimits;
  /** The uncompressed archive of a layer, 0 being the lowest; asked for top-down. */
  open(layer: number): ByteSource;
  /** More layers are read than there are: this one again. */
  reopen(layer: number): ByteSource;
}

/** A merged image. */
export interface MergedImage<Content> {
  root: TreeNode<Content>;
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
  for (const [name, value] of xattrs ?? []) bytes += name.length + value.length;
  return bytes;
}

/** Read one layer's entries, storing the content that `wanted` asks for. */
function readLayer<Content>(
  source: ByteSource,
  blob: LayerBlob,
  context: StreamContext<Content>,
  counts: Counts,
  wanted: (path: string, index: number, whiteout: Whiteout) => boolean,
): LayerEntries<Content> {
  const { store, limits } = context;
  const reader = new TarReader(source, limits, (total) =>
    checkBytes(counts.bytes + total, total, blob, limits),
  );
  const entries: LayerEntries<Content> = [];
  for (let header = reader.next(); header !== undefined; header = reader.next()) {
    if (++counts.entries > limits.entries) throw tooMany(`more than ${limits.entries} entries`);
    counts.metadata += metadataBytes(header);
    if (counts.metadata > limits.metadataBytes) {
      throw tooMany(`more than ${limits.metadataBytes} bytes of names and attributes`);
    }
    const parts = cleanPath(header.path, limits);
    const path = parts.join("/");
    const whiteout = whiteoutOf(parts);
    let content: Content | undefined;
    if (header.kind === "file" && wanted(path, entries.length, whiteout)) {
      store.begin(header.size);
      reader.content((offset, chunk, from, to) => store.write(offset, chunk, from, to));
      content = store.end();
    }
    entries.push({ header, parts, path, whiteout, content });
  }
  const diffId = `sha256:${reader.drain()}`;
  counts.bytes += reader.total;
  if (diffId !== blob.diffId) {
    throw layerError(
      "DIFF_ID",
      `Cannot use the layer ${blob.digest}`,
      `Its content has the digest ${diffId}; the image's configuration says ${blob.diffId}.`,
      "Pull the image again.",
    );
  }
  return entries;
}

/** The error for an image beyond the limits. */
function tooMany(what: string): VmsanError {
  return new VmsanError({
    code: "ERR_LAYER_LIMIT",
    message: "Cannot use the image",
    why: `Its layers hold ${what}.`,
    fix: "Use another image.",
  });
}

/** Enforce the limits on uncompressed bytes. */
function checkBytes(all: number, own: number, blob: LayerBlob, limits: LayerLimits): void {
  if (all > limits.archiveBytes) throw tooMany(`more than ${limits.archiveBytes} bytes`);
  if (own > 2 ** 30 && own > blob.size * limits.expansion) {
    throw tooMany(`a blob that expands more than ${limits.expansion} times`);
  }
}

/**
 * Read all layers and merge them.
 * @param layers bottom to top
 * Throws ERR_LAYER_* when an archive is malformed or is not what its digests say.
 */
export function mergeImage<Content>(
  layers: readonly LayerBlob[],
  context: StreamContext<Content>,
): MergedImage<Content> {
  const started = performance.now();
  const counts = { entries: 0, bytes: 0, metadata: 0 };
  const cover = new Cover();
  const all: LayerEntries<Content>[] = layers.map(() => []);
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const blob = layers[layer];
    if (blob === undefined) continue;
    const entries = readLayer(
      context.open(layer),
      blob,
      context,
      counts,
      (path, _, { kind }) => kind === "none" && !cover.hides(path),
    );
    cover.add(entries);
    all[layer] = entries;
  }
  const layerEntries = counts.entries;
  const readAt = performance.now();
  const { root, dropped } = mergeLayers(all, context.limits);
  const rereadLayers = settle(root, all, layers, context);
  return {
    root,
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
function settle<Content>(
  root: TreeNode<Content>,
  all: readonly LayerEntries<Content>[],
  layers: readonly LayerBlob[],
  context: StreamContext<Content>,
): number {
  const missing = new Map<number, Map<number, TreeNode<Content>>>();
  const used = all.map((entries) => new Uint8Array(entries.length));
  for (const node of walkNodes(root)) {
    if (node.origin === undefined) continue;
    const { layer, entry } = node.origin;
    const marks = used[layer];
    if (marks !== undefined) marks[entry] = 1;
    if (node.content !== undefined) continue;
    const nodes = missing.get(layer) ?? new Map<number, TreeNode<Content>>();
    nodes.set(entry, node);
    missing.set(layer, nodes);
  }
  all.forEach((entries, layer) => {
    entries.forEach(({ content }, index) => {
      if (content !== undefined && used[layer]?.[index] !== 1) context.store.release(content);
    });
  });
  // Highest first, as in the first reading: the same layers always give the same image.
  const again = [...missing].sort(([a], [b]) => b - a);
  for (const [layer, nodes] of again) {
    const blob = layers[layer];
    if (blob === undefined) continue;
    const counts = { entries: 0, bytes: 0, metadata: 0 };
    const entries = readLayer(context.reopen(layer), blob, context, counts, (_, index) =>
      nodes.has(index),
    );
    for (const [index, node] of nodes) node.content = entries[index]?.content;
  }
  return again.length;
}
