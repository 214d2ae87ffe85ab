/** The disk of an image, begun while the image is still being pulled. */
import { availableParallelism } from "node:os";
import type { ComingLayers } from "../../model/disk.ts";
import type { ComingLayer, Digest, LayerBlob, LayerFollower } from "../../model/image.ts";
import type { Follow } from "../../oci/images.ts";
import type { Rootfs, RootfsOptions } from "../../rootfs/cache.ts";
import type { Work } from "../stages.ts";

/** What of the options is decided here. */
type Options = Pick<RootfsOptions, "signal" | "progress" | "coming">;
/** Gives a disk, built unless it is there. */
type Build = (layers: LayerBlob[], options: Options) => Promise<Rootfs>;

/** Disks that are begun before their layers are there, at once: each is a process that mostly waits. */
const MOST = availableParallelism();
let running = 0;

/** Those that have begun one. */
const guessing = new Set<DiskAhead>();
/** Those that build of layers that are there, and of which. */
const certain = new Map<DiskAhead, string>();

/** What disks of these layers have in common. */
function contentOf(layers: readonly LayerBlob[]): string {
  return layers.map(({ diffId }) => diffId).join();
}

/** Layers that come, for whoever builds of them. */
class Coming implements ComingLayers, LayerFollower {
  readonly partials: string[];
  readonly layers: readonly ComingLayer[];
  private readonly bytes: number[];
  private readonly followers = new Set<(layer: number, bytes: number) => void>();
  private readonly onLost: () => void;

  constructor(layers: readonly ComingLayer[], onLost: () => void) {
    this.layers = layers;
    this.partials = layers.map(({ partial }) => partial);
    this.bytes = layers.map(() => 0);
    this.onLost = onLost;
  }

  arrived(digest: Digest, bytes: number): void {
    // An image may hold the same layer more than once.
    for (const [layer, { digest: own }] of this.layers.entries()) {
      if (own !== digest || bytes <= (this.bytes[layer] ?? 0)) continue;
      this.bytes[layer] = bytes;
      for (const tell of this.followers) tell(layer, bytes);
    }
  }

  lost(): void {
    this.onLost();
  }

  /** Whether something is missing that does not come with layers that are there. */
  isMissing(there: readonly LayerBlob[]): boolean {
    return this.layers.some(
      ({ size, path }, layer) => (this.bytes[layer] ?? 0) < size && there[layer]?.path !== path,
    );
  }

  follow(tell: (layer: number, bytes: number) => void): () => void {
    for (const [layer, bytes] of this.bytes.entries()) if (bytes > 0) tell(layer, bytes);
    this.followers.add(tell);
    return () => this.followers.delete(tell);
  }
}

/**
 * A disk that is built while its layers come, for a cache. What is begun so is a guess that they will come
 * as they are announced: when all is there the cache is asked in any case, which has the disk by then, or
 * builds it and says what is wrong.
 */
export class DiskAhead {
  private readonly work: Work;
  private readonly build: Build;
  private readonly stop = new AbortController();
  private begun: { coming: Coming; done: Promise<unknown> } | undefined;
  /** The pull has ended: what is told from now on is of the disk. */
  private pulled = false;
  /** Compressed bytes that the build has read, and how many there are. */
  private read: { done: number; total: number } | undefined;

  constructor(work: Work, build: Build) {
    this.work = work;
    this.build = build;
  }

  /** Pull, building meanwhile. When the pull fails, nothing is built any more. */
  async during<T>(pull: (follow: Follow) => Promise<T>): Promise<T> {
    try {
      return await pull((layers) => this.begin(layers));
    } catch (error) {
      this.stop.abort();
      await this.begun?.done;
      throw error;
    } finally {
      this.pulled = true;
    }
  }

  /** The disk of these layers, which are all there. */
  async of(layers: LayerBlob[]): Promise<Rootfs> {
    const { begun, work } = this;
    this.tell();
    const content = contentOf(layers);
    if (begun === undefined || contentOf(begun.coming.layers) !== content) this.stop.abort();
    certain.set(this, content);
    try {
      // Of one disk one is built at a time: whoever waits for a registry must not keep it from others.
      for (const other of guessing) if (other !== this) other.giveWay(content, layers);
      await begun?.done;
      // What was begun and succeeded is there, unless it has been removed meanwhile.
      return await this.build(layers, { signal: work.signal, progress: this.progress });
    } finally {
      certain.delete(this);
    }
  }

  /** Give up what waits for layers though the same disk can be built of these. */
  private giveWay(content: string, there: readonly LayerBlob[]): void {
    const coming = this.begun?.coming;
    if (coming === undefined || contentOf(coming.layers) !== content) return;
    if (coming.isMissing(there)) this.stop.abort();
  }

  private begin(layers: ComingLayer[]): LayerFollower | undefined {
    if (running === MOST || [...certain.values()].includes(contentOf(layers))) return undefined;
    running += 1;
    guessing.add(this);
    const coming = new Coming(layers, () => this.stop.abort());
    const signal = AbortSignal.any([this.work.signal, this.stop.signal]);
    const done = this.build(layers, { signal, progress: this.progress, coming })
      // It was a guess. What is wrong shows when it is built of what is there.
      .catch(() => undefined)
      .finally(() => {
        running -= 1;
        guessing.delete(this);
      });
    this.begun = { coming, done };
    return coming;
  }

  private readonly progress = (done: number, total: number): void => {
    this.read = { done, total };
    if (this.pulled) this.tell();
  };

  private tell(): void {
    if (this.read === undefined) return;
    this.work.progress({ phase: "build", message: "disk image", ...this.read, unit: "bytes" });
  }
}
