/** Worker thread: merges the layers that the decompression threads deliver, and writes the result. */
import { parentPort, workerData } from "node:worker_threads";
import { asVmsanError } from "../model/errors.ts";
import { Ext4Writer, ImageFile } from "../ext4/ext4.ts";
import { LayerSources, mergeImage } from "../layers/layers.ts";
import type { BuildAnswer, BuildOrder, BuildResult } from "./protocol.ts";

/** Layers → ext4 image. */
function buildDisk(order: BuildOrder): BuildResult {
  const sources = new LayerSources(order.memory);
  const file = new ImageFile(order.output, order.options.sizeBytes);
  try {
    const writer = new Ext4Writer(file, { ...order.options, ...order.identity });
    const merged = mergeImage(order.memory.layers, {
      store: writer.data,
      limits: order.limits,
      open: (layer) => sources.open(layer),
      reopen: (layer) => sources.reopen(layer),
    });
    const started = performance.now();
    const { entries, warnings } = writer.finish(merged.root);
    return {
      entries,
      warnings,
      dataBytes: writer.data.dataBytes,
      holeBytes: writer.data.holeBytes,
      droppedEntries: merged.droppedEntries,
      seconds: { ...merged.seconds, finish: (performance.now() - started) / 1000 },
    };
  } finally {
    file.close();
  }
}

/** Carry out the order. */
function build(order: BuildOrder): BuildAnswer {
  try {
    return { kind: "done", result: buildDisk(order) };
  } catch (error) {
    const action = `Cannot build the disk image ${order.output}`;
    return { kind: "failed", error: asVmsanError(error, action, "ERR_DISK_BUILD").toJSON() };
  }
}

// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
parentPort?.postMessage(build(workerData as BuildOrder));
