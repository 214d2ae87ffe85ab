/**
 * The sandbox of a request that names none, by what only a key's holder can make: its token, or a signature by that. Anybody may
 * send what is neither, so that looking costs little whoever asks: the daemon is asked for its VMs seldom, and comparing takes a small
 * share of the time.
 */
import { timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { Mutex } from "../../../util/flow/mutex.ts";
import { sees } from "../../access/gate.ts";
import type { Tokens } from "../../access/tokens.ts";
import { E2bError } from "../errors.ts";
import { isSandbox } from "../sandbox.ts";

/** From one question for all VMs to the next at least, in milliseconds. */
const PAUSE_MS = 250;
/** Of the time, one part of so many goes into a question, and into comparing. */
const SHARE = 20;
const COMPARE_SHARE = 4;
/** Most requests that wait to be compared. */
const MAX_WAITING = 200;
/** Sandboxes that were proven last are tried first: clients come again. */
const MAX_RECENT = 64;

/** What a request proves: whose token of which sandbox it was made with. */
interface Proof {
  /** Whether a key's token can be it at all. */
  may: (key: GatewayKey) => boolean;
  isMeant: (token: string) => boolean;
}

/** A sandbox, and the key in whose name it is used. */
interface Proven {
  key: GatewayKey;
  id: string;
}

/** Finds sandboxes by proofs. */
export class ProvenSandboxes {
  private readonly vmsan: Pick<Vmsan, "list">;
  private readonly tokens: Tokens;
  private readonly recent = new Map<string, VmView>();
  private readonly turn = new Mutex();
  private waiting = 0;
  private views: VmView[] = [];
  /** When they were asked for, by the clock that never goes back, and how long that took. */
  private askedAt = -Infinity;
  private tookMs = 0;
  private asking: Promise<void> | undefined;

  constructor(vmsan: Pick<Vmsan, "list">, tokens: Tokens) {
    this.vmsan = vmsan;
    this.tokens = tokens;
  }

  /** The sandbox whose token a text is. */
  async ofToken(text: string): Promise<Proven | undefined> {
    const holder = await this.tokens.holder(text);
    // Most of what strangers send ends here.
    if (holder === undefined) return undefined;
    const given = Buffer.from(text);
    return await this.find({
      may: ({ id }) => id === holder.id,
      isMeant: (token) => timingSafeEqual(Buffer.from(token), given),
    });
  }

  /** The sandbox with whose token something was made. @param isMeant tells whether with this one; undefined: with none */
  async ofProof(isMeant: Proof["isMeant"] | undefined): Promise<Proven | undefined> {
    return isMeant && (await this.find({ may: () => true, isMeant }));
  }

  /** The sandbox that a proof is of. @throws resource_exhausted when too many others are looked for */
  private async find(proof: Proof): Promise<Proven | undefined> {
    const since = performance.now();
    const at = await this.among([...this.recent.values()].toReversed(), proof);
    if (at !== undefined) return at;
    if (this.waiting >= MAX_WAITING)
      throw new E2bError("resource_exhausted", "too many requests that name no sandbox");
    this.waiting += 1;
    try {
      return (
        (await this.inTurn(proof)) ??
        (await this.askSince(since).then(async () => await this.inTurn(proof)))
      );
    } finally {
      this.waiting -= 1;
    }
  }

  /** Compare with all that is known, one request after the other. */
  private async inTurn(proof: Proof): Promise<Proven | undefined> {
    return await this.turn.run(async () => {
      const since = performance.now();
      const found = await this.among(this.views, proof);
      if (found === undefined) await sleep((performance.now() - since) * (COMPARE_SHARE - 1));
      return found;
    });
  }

  private async among(views: readonly VmView[], proof: Proof): Promise<Proven | undefined> {
    const found = await this.tokens.whose(
      "data",
      views,
      (key, view) => proof.may(key) && sees({ key }, view),
      proof.isMeant,
    );
    if (found === undefined) return undefined;
    const { key, subject } = found;
    this.recent.delete(subject.id);
    this.recent.set(subject.id, subject);
    if (this.recent.size > MAX_RECENT) this.recent.delete(this.recent.keys().next().value ?? "");
    return { key, id: subject.id };
  }

  /** Know what there is since an instant; all who ask meanwhile are answered at once. */
  private async askSince(since: number): Promise<void> {
    while (this.askedAt < since) {
      this.asking ??= this.ask().finally(() => (this.asking = undefined));
      await this.asking;
    }
  }

  private async ask(): Promise<void> {
    const pause = Math.max(PAUSE_MS, this.tookMs * SHARE);
    await sleep(Math.max(0, this.askedAt + pause - performance.now()));
    const at = performance.now();
    const views = await this.vmsan.list();
    this.views = views.filter(isSandbox);
    this.askedAt = at;
    this.tookMs = performance.now() - at;
  }
}
