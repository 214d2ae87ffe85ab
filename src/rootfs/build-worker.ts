/** Worker thread: merges the layers that the decompression threads deliver, and writes the result. */
import { rmSync } from "node:fs";
import { flushCompileCache } from "node:module";
import { parentPort, workerData } from "node:worker_threads";
import { asVmsanError, errnoOf } from "../model/errors.ts";
import {
  BLOCK_SIZE,
  BlockAppender,
  countBlocks,
  DataWriter,
  Ext4Writer,
  ImageFile,
} from "../ext4/ext4.ts";
import { LayerSources, mergeImage, type MergedImage } from "../layers/layers.ts";
import type { NodeFields } from "../util/file-tree/file-tree.ts";
import { writeMergedTar } from "./merged-tar.ts";
import type { BuildAnswer, BuildResult, ThreadOrder } from "./protocol.ts";

/** Read and merge, contents going through `store`. */
function merge(order: ThreadOrder, store: DataWriter): MergedImage {
  const sources = new LayerSources(order.memory);
  return mergeImage(order.memory.layers, {
    store,
    limits: order.limits,
    open: (layer) => sources.open(layer),
    reopen: (layer) => sources.reopen(layer),
  });
}

/** The part of the result that both formats share. */
function resultOf(
  { tree, droppedEntries, seconds }: MergedImage,
  data: DataWriter,
  entries: number,
  warnings: string[],
  finishedFrom: number,
): BuildResult {
  let dataBytes = 0;
  let holeBytes = 0;
  for (const node of tree.nodes()) {
    const size = tree.sizes[node] ?? 0;
    const blocks = countBlocks(data.extentsOf(tree.contents[node] ?? 0));
    const stored = Math.min(size, blocks * BLOCK_SIZE);
    dataBytes += stored;
    holeBytes += size - stored;
  }
  return {
    entries,
    warnings,
    dataBytes,
    holeBytes,
    droppedEntries,
    seconds: { ...seconds, finish: (performance.now() - finishedFrom) / 1000 },
  };
}

/** Layers → ext4 image. */
function buildDisk(order: ThreadOrder): BuildResult {
  const file = new ImageFile(order.output, order.options.sizeBytes);
  try {
    const writer = new Ext4Writer(file, { ...order.options, ...order.identity });
    const merged = merge(order, writer.data);
    const started = performance.now();
    const { entries, warnings } = writer.finish(merged.tree);
    return resultOf(merged, writer.data, entries, warnings, started);
  } finally {
    file.close();
  }
}

/** Layers → one archive. Contents wait in a pool beside it until the tree is known. */
function buildTar(order: ThreadOrder): BuildResult {
  const pool = `${order.output}.pool`;
  const file = new ImageFile(pool, 0);
  try {
    const appender = new BlockAppender(file, 0, Number.MAX_SAFE_INTEGER);
    const data = new DataWriter(appender);
    const merged = merge(order, data);
    const started = performance.now();
    appender.flush();
    const losses = new Losses();
    const names = writeMergedTar(merged.tree, data, pool, order.output, (node) =>
      losses.keep(node),
    );
    return resultOf(merged, data, names, losses.toWarnings(), started);
  } finally {
    file.close();
    rmSync(pool, { force: true });
  }
}

/** What tar and mkfs.ext4 cannot keep, mostly for an ordinary user; counted. */
class Losses {
  private readonly root = process.getuid?.() === 0;
  private owners = 0;
  private devices = 0;
  private unreadable = 0;
  private capabilities = 0;
  private times = 0;

  /** The node as this user can make it; undefined when not at all. */
  keep(node: NodeFields): NodeFields | undefined {
    if (node.mtimeNsec !== 0 || node.mtime < 0 || node.mtime > 0x7fffffff) this.times++;
    if (this.root) return node;
    if (node.kind === "char" || node.kind === "block") {
      this.devices++;
      return undefined;
    }
    if (node.uid !== process.getuid?.() || node.gid !== process.getgid?.()) this.owners++;
    const names = [...(node.xattrs?.keys() ?? [])];
    if (names.some((name) => !name.startsWith("user.") && !name.startsWith("system."))) {
      this.capabilities++;
    }
    // mkfs.ext4 reads what tar has written: it must be able to.
    const needed = node.kind === "directory" ? 0o700 : 0o400;
    if (node.kind === "symlink" || (node.mode & needed) === needed) return node;
    this.unreadable++;
    return { ...node, mode: node.mode | needed };
  }

  toWarnings(): string[] {
    const told: [number, string][] = [
      [this.owners, "entries lost their owner (only root can give files away)"],
      [this.devices, "device nodes left out (only root can make them)"],
      [this.capabilities, "entries lost capabilities or other protected attributes"],
      [this.times, "times were cut to the whole 32-bit seconds that mkfs.ext4 -d stores"],
      [this.unreadable, "entries became readable to their owner"],
    ];
    return told.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  }
}

/** Carry out the order. */
function build(order: ThreadOrder): BuildAnswer {
  try {
    return { kind: "done", result: order.format === "tar" ? buildTar(order) : buildDisk(order) };
  } catch (error) {
    const action = `Cannot build the disk image ${order.output}`;
    const full = errnoOf(error) === "ENOSPC" || errnoOf(error) === "EDQUOT";
    const [code, fix] = full
      ? ["ERR_DISK_FULL", "Free some space: `vmsan image prune --all` removes what no VM uses."]
      : ["ERR_DISK_BUILD", "See the daemon's log: vmsan daemon logs."];
    return { kind: "failed", error: asVmsanError(error, action, code, fix).toJSON() };
  }
}

const answer = build(workerData as ThreadOrder);
flushCompileCache();
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
parentPort?.postMessage(answer);
