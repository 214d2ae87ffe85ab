/** Worker thread: decompresses layers into its ring, one after the other, until it is ended. */
import { flushCompileCache } from "node:module";
import { workerData } from "node:worker_threads";
import type { LayerBlob } from "../model/image.ts";
import { asVmsanError, messageOf } from "../model/errors.ts";
import { createInflater as createStreamInflater } from "../util/packing/decompress.ts";
import { arrivingLayer, BlobFile } from "./blob-file.ts";
import { badCompression, BlobReader } from "./blob-reader.ts";
import { createInflater, type Inflater } from "./inflater.ts";
import { Jobs } from "./jobs.ts";
import type { ReaderMemory } from "./readers.ts";
import { RingProducer, SLOT, SLOT_SIZE } from "./ring.ts";

const { memory, worker } = workerData as { memory: ReaderMemory; worker: number };

const progress = new BigInt64Array(memory.progress);

/** Count compressed bytes for everyone to see. */
function count(bytes: number): void {
  Atomics.add(progress, 0, BigInt(bytes));
}

/** Decompress with the synchronous decompressor, straight into the ring. */
function inflate(blob: LayerBlob, file: BlobFile, inflater: Inflater, ring: RingProducer): void {
  const reader = new BlobReader(blob, file, inflater, count);
  for (;;) {
    const slot = ring.reserve();
    const length = reader.fill(slot);
    if (length > 0) ring.commit(SLOT.data, length);
    if (length < slot.length) return;
  }
}

/** Decompress with Node's public streams: slower, same result. */
async function inflateStream(blob: LayerBlob, file: BlobFile, ring: RingProducer): Promise<void> {
  const stream = await createStreamInflater(blob.compression, (bytes) => {
    for (let at = 0; at < bytes.length; at += SLOT_SIZE) {
      const part = bytes.subarray(at, at + SLOT_SIZE);
      ring.reserve().set(part);
      ring.commit(SLOT.data, part.length);
    }
  });
  const guard = async (step: Promise<void>): Promise<void> => {
    try {
      await step;
    } catch (error) {
      throw badCompression(blob, messageOf(error));
    }
  };
  for (;;) {
    // A new one each time: the stream may keep it.
    const bytes = Buffer.allocUnsafeSlow(SLOT_SIZE);
    const length = file.read(bytes);
    if (length === 0) break;
    count(length);
    await guard(stream.write(bytes.subarray(0, length)));
  }
  await guard(stream.end());
}

/** Decompress one layer, and say how it ended. */
async function work(layer: number, blob: LayerBlob, ring: RingProducer): Promise<void> {
  let file: BlobFile | undefined;
  let inflater: Inflater | undefined;
  try {
    const { arrivals, streams } = memory;
    file = new BlobFile(blob, arrivals === undefined ? undefined : arrivingLayer(arrivals, layer));
    if (!streams) inflater = createInflater(blob.compression);
    if (inflater === undefined) await inflateStream(blob, file, ring);
    else inflate(blob, file, inflater, ring);
    ring.reserve();
    ring.commit(SLOT.end, 0);
  } catch (error) {
    const info = asVmsanError(error, `Cannot read the layer ${blob.digest}`, "ERR_LAYER_READ");
    const text = Buffer.from(JSON.stringify(info));
    ring.reserve().set(text.subarray(0, SLOT_SIZE));
    ring.commit(SLOT.error, Math.min(text.length, SLOT_SIZE));
  } finally {
    inflater?.close();
    file?.close();
  }
}

const jobs = new Jobs(memory.jobs);
const ringMemory = memory.rings[worker];
if (ringMemory === undefined) throw new RangeError(`no ring ${worker}`);
const ring = new RingProducer(ringMemory);
for (;;) {
  const layer = jobs.claim(worker);
  const blob = memory.layers[layer];
  if (blob !== undefined) await work(layer, blob, ring);
  // Whoever ends this thread does not wait for it.
  flushCompileCache();
}
