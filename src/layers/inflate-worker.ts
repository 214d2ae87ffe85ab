/** Worker thread: decompresses layers into its ring, one after the other, until it is ended. */
import { createReadStream } from "node:fs";
import { createHash } from "node:crypto";
import { workerData } from "node:worker_threads";
import type { LayerBlob } from "../model/image.ts";
import { asVmsanError, messageOf } from "../model/errors.ts";
import { createInflater as createStreamInflater } from "../util/packing/decompress.ts";
import { badCompression, badDigest, BlobReader } from "./blob-reader.ts";
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
function inflate(blob: LayerBlob, inflater: Inflater, ring: RingProducer): void {
  const reader = new BlobReader(blob, inflater, count);
  try {
    for (;;) {
      const slot = ring.reserve();
      const length = reader.fill(slot);
      if (length > 0) ring.commit(SLOT.data, length);
      if (length < slot.length) return;
    }
  } finally {
    reader.close();
  }
}

/** Decompress with Node's public streams: slower, same result. */
async function inflateStream(blob: LayerBlob, ring: RingProducer): Promise<void> {
  const hash = createHash("sha256");
  let size = 0;
  const stream = await createStreamInflater(blob.compression, (bytes) => {
    for (let at = 0; at < bytes.length; at += SLOT_SIZE) {
      const part = bytes.subarray(at, at + SLOT_SIZE);
      ring.reserve().set(part);
      ring.commit(SLOT.data, part.length);
    }
  });
  let failure: unknown;
  const guard = async (step: () => Promise<void>): Promise<void> => {
    try {
      if (failure === undefined) await step();
    } catch (error) {
      failure = error;
    }
  };
  // Read to the end even so: a damaged file is the likelier cause, and is what is reported then.
  for await (const chunk of createReadStream(blob.path)) {
    const bytes = chunk as Buffer;
    hash.update(bytes);
    size += bytes.length;
    count(bytes.length);
    await guard(async () => await stream.write(bytes));
  }
  await guard(async () => await stream.end());
  if (size !== blob.size) throw badDigest(blob, `it has ${size} bytes instead of ${blob.size}`);
  const digest = `sha256:${hash.digest("hex")}`;
  if (digest !== blob.digest) throw badDigest(blob, digest);
  if (failure !== undefined) throw badCompression(blob, messageOf(failure));
}

/** Decompress one layer, and say how it ended. */
async function work(blob: LayerBlob, ring: RingProducer): Promise<void> {
  try {
    const inflater = memory.streams ? undefined : createInflater(blob.compression);
    if (inflater === undefined) await inflateStream(blob, ring);
    else inflate(blob, inflater, ring);
    ring.reserve();
    ring.commit(SLOT.end, 0);
  } catch (error) {
    const info = asVmsanError(error, `Cannot read the layer ${blob.digest}`, "ERR_LAYER_READ");
    const text = Buffer.from(JSON.stringify(info));
    ring.reserve().set(text.subarray(0, SLOT_SIZE));
    ring.commit(SLOT.error, Math.min(text.length, SLOT_SIZE));
  }
}

const jobs = new Jobs(memory.jobs);
const ringMemory = memory.rings[worker];
if (ringMemory === undefined) throw new RangeError(`no ring ${worker}`);
const ring = new RingProducer(ringMemory);
for (;;) {
  const blob = memory.layers[jobs.claim(worker)];
  if (blob !== undefined) await work(blob, ring);
}
