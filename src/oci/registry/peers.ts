/** Layers from other hosts that have them, by digest: asked before the registry, which alone says which an image has. */
import type { BlobPeers } from "../../model/api.ts";
import type { Descriptor } from "../../schema/oci.ts";
import type { ContentStore } from "../store/store.ts";
import { PullFailure, statusFailure } from "../http/failure.ts";
import { Transport } from "../http/transport.ts";
import type { Answer, TransportRequest } from "../http/transport.ts";
import type { BlobPeer } from "./download.ts";
import type { BlobServer, GetOptions } from "./session.ts";

/** How long hosts may take to say that they have a layer, in milliseconds. */
const ASK_MS = 1_000;
/** Smaller layers come from the registry in the time that asking takes. */
const WORTH_BYTES = 64 << 10;
/** A host that sends less than so many bytes within so many milliseconds is left for the registry: none holds a layer for long. */
const SLOW_MS = 5_000;
const SLOW_BYTES = 5 << 20;

/** One host. It gets no credentials, and leads nowhere else. */
class Peer implements BlobPeer {
  readonly endpoint: BlobServer["endpoint"];
  readonly #transport: Transport;
  readonly #others: Set<Peer>;

  /** @param others those that are worth asking */
  constructor(host: string, transport: Transport, others: Set<Peer>) {
    this.endpoint = { host, bases: [new URL(`https://${host}`)] };
    this.#transport = transport;
    this.#others = others;
  }

  leave(): void {
    this.#others.delete(this);
  }

  async #send(rest: string, request: TransportRequest): Promise<Answer> {
    const answer = await this.#transport.request(
      new URL(`/v2/node/${rest}`, this.endpoint.bases[0]),
      request,
    );
    if (answer.status === 200 || answer.status === 206) return answer;
    answer.discard();
    throw statusFailure(answer.status, answer.url, "");
  }

  async get(rest: string, options: GetOptions = {}): Promise<Answer> {
    return await this.#send(rest, options);
  }

  /** @throws PullFailure when it does not have that blob */
  async has({ digest, size }: Descriptor, signal: AbortSignal): Promise<this> {
    const answer = await this.#send(`blobs/${digest}`, { method: "HEAD", signal });
    await answer.read(0, signal);
    if (Number(answer.headers["content-length"]) === size) return this;
    throw statusFailure(404, answer.url, "");
  }
}

/** The hosts of one pull; close them when done. */
export class Peers {
  readonly #transport: Transport;
  /** Those that are worth asking. */
  readonly #peers = new Set<Peer>();

  constructor({ hosts, ...identity }: BlobPeers) {
    // Hosts of one cluster reach each other without a proxy.
    this.#transport = new Transport({
      identity,
      env: {},
      idleTimeoutMs: SLOW_MS,
      idleBytes: SLOW_BYTES,
    });
    for (const host of hosts) this.#peers.add(new Peer(host, this.#transport, this.#peers));
  }

  async #ask(
    peer: Peer,
    layer: Descriptor,
    limit: AbortSignal,
    enough: AbortSignal,
  ): Promise<Peer> {
    try {
      return await peer.has(layer, limit);
    } catch (error) {
      // One that does not answer, or refuses, does so for the next layer, too.
      const lacks = error instanceof PullFailure && error.code === "ERR_IMAGE_NOT_FOUND";
      if (!lacks && !enough.aborted) peer.leave();
      throw error;
    }
  }

  /** The first that says it has a layer, if that is worth it and not here yet; undefined: none does. */
  async having(
    layer: Descriptor,
    store: ContentStore,
    signal: AbortSignal,
  ): Promise<BlobPeer | undefined> {
    if (layer.size < WORTH_BYTES || (await store.blobSize(layer.digest)) === layer.size) {
      return undefined;
    }
    const enough = new AbortController();
    const limit = AbortSignal.any([signal, enough.signal, AbortSignal.timeout(ASK_MS)]);
    try {
      const asked = [...this.#peers].map(
        async (peer) => await this.#ask(peer, layer, limit, enough.signal),
      );
      return await Promise.any(asked);
    } catch {
      // AggregateError: none of them; the registry is asked.
      signal.throwIfAborted();
      return undefined;
    } finally {
      enough.abort();
    }
  }

  /** End all connections. */
  close(): void {
    this.#transport.close();
  }
}
