/**
 * Images of pods, fetched before their VMs are made: registries that are slow or dead keep no pod waiting whose image is
 * here.
 */
import type { Vmsan } from "../../../client/vmsan.ts";
import type { WorkOptions } from "../../../client/daemon.ts";
import type { BlobPeers, PullPolicy } from "../../../model/api.ts";
import type { Pod, PodContainer } from "../../../schema/pod.ts";
import { abortable } from "../../../util/flow/abortable.ts";
import { fetchImage, pullPolicyOf } from "../spec/pull.ts";
import type { References } from "../files/references.ts";

/** Finds other nodes that have an image. */
export interface ImagePeers {
  /** Never rejects; undefined: none has it. */
  having(image: string): Promise<BlobPeers | undefined>;
}

/** Most names that are remembered. */
const REMEMBERED = 1_000;

/** The images of this host as pods name them. */
export class PodImages {
  private readonly vmsan: Vmsan;
  private readonly peers: ImagePeers | undefined;
  /** Names of images that were here: asked for once more only by who wants that always. */
  private readonly here = new Set<string>();
  /** By image: what is being fetched without credentials; gives how that has failed, if it has. */
  private readonly coming = new Map<string, Promise<{ error?: unknown; aborted: boolean }>>();

  /** @param peers absent: the registry alone is asked */
  constructor(vmsan: Vmsan, peers?: ImagePeers) {
    this.vmsan = vmsan;
    this.peers = peers;
  }

  /**
   * Have a pod's image here.
   * @returns how its VM is to get it
   * @throws PodNotReadyError with `ErrImagePull`, ERR_IMAGE_*
   */
  async fetch(
    pod: Pod,
    container: PodContainer,
    references: References,
    work: WorkOptions,
  ): Promise<PullPolicy> {
    const { image } = container;
    const always = pullPolicyOf(container) === "always";
    const fetch = async (): Promise<PullPolicy> => {
      const known = !always && this.here.has(image);
      const peers = known ? undefined : await this.peers?.having(image);
      const from = peers === undefined ? {} : { peers };
      const all = { known, ...from, ...work };
      const fetched = await fetchImage(this.vmsan, pod, container, references, all);
      if (this.here.size >= REMEMBERED) this.here.clear();
      this.here.add(image);
      return fetched;
    };
    if (always || (pod.spec.imagePullSecrets ?? []).length > 0) return await fetch();
    // Of many that begin at once with one image, one asks for it.
    for (let other; (other = this.coming.get(image)) !== undefined;) {
      const { error, aborted } = await abortable(other, work.signal);
      if (error !== undefined && !aborted) throw error;
    }
    if (this.here.has(image)) return await fetch();
    const fetching = fetch();
    const outcome = fetching.then(
      () => ({ aborted: false }),
      (error: unknown) => ({ error, aborted: work.signal?.aborted === true }),
    );
    this.coming.set(image, outcome);
    void outcome.then(() => this.coming.delete(image));
    return await fetching;
  }

  /** A VM could not be made of it: it may not be here any more. */
  forget({ image }: PodContainer): void {
    this.here.delete(image);
  }
}
