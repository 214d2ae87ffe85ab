/**
 * The sandbox of a request that names none, by what only a key's holder can make: its token, or a signature by that. Anybody may
 * send what is neither, so that looking costs little whoever asks: the daemon is asked for its VMs seldom, and comparing takes a small
 * share of the time; those who ask from one network keep nobody from another waiting.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { FairQueue } from "../../../util/flow/fair-queue.ts";
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
  private readonly line = new FairQueue(MAX_WAITING);
  private views: VmView[] = [];
  /** Sandboxes in {@link views} by their tokens, of each key that was asked for. */
  private byToken = new Map<string, ReadonlyMap<string, VmView>>();
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
    const key = await this.tokens.holder(text);
    // Most of what strangers send ends here.
    if (key === undefined) return undefined;
    const since = performance.now();
    let view = this.tokensOf(key).get(text);
    if (view === undefined) {
      await this.askSince(since);
      view = this.tokensOf(key).get(text);
    }
    return view && this.found(key, view);
  }

  /**
   * The sandbox with whose token something was made.
   * @param isMeant tells whether with this one; undefined: with none
   * @param who asks: whoever else does waits in a line of its own
   * @throws resource_exhausted when too much is looked for
   */
  async ofProof(
    isMeant: ((token: string) => boolean) | undefined,
    who: string,
  ): Promise<Proven | undefined> {
    if (isMeant === undefined) return undefined;
    const since = performance.now();
    const recent = await this.among([...this.recent.values()].toReversed(), isMeant);
    return (
      recent ??
      (await this.inTurn(isMeant, who)) ??
      (await this.askSince(since).then(async () => await this.inTurn(isMeant, who)))
    );
  }

  /** Tokens of a key for all that is known and that it may see: so that finding one costs nothing, and a guess no more. */
  private tokensOf(key: GatewayKey): ReadonlyMap<string, VmView> {
    let known = this.byToken.get(key.id);
    if (known === undefined) {
      const visible = this.views.filter((view) => sees({ key }, view));
      known = new Map(visible.map((view) => [this.tokens.of(key, "data", view.id), view]));
      this.byToken.set(key.id, known);
    }
    return known;
  }

  /** Compare with all that is known, one request after the other. */
  private async inTurn(
    isMeant: (token: string) => boolean,
    who: string,
  ): Promise<Proven | undefined> {
    const compare = async (): Promise<Proven | undefined> => {
      const since = performance.now();
      const found = await this.among(this.views, isMeant);
      if (found === undefined) await sleep((performance.now() - since) * (COMPARE_SHARE - 1));
      return found;
    };
    return await this.line.run(
      who,
      compare,
      () => new E2bError("resource_exhausted", "too many requests that name no sandbox"),
    );
  }

  private async among(
    views: readonly VmView[],
    isMeant: (token: string) => boolean,
  ): Promise<Proven | undefined> {
    const may = (key: GatewayKey, view: VmView): boolean => sees({ key }, view);
    const found = await this.tokens.whose("data", views, may, isMeant);
    return found && this.found(found.key, found.subject);
  }

  private found(key: GatewayKey, view: VmView): Proven {
    this.recent.delete(view.id);
    this.recent.set(view.id, view);
    if (this.recent.size > MAX_RECENT) this.recent.delete(this.recent.keys().next().value ?? "");
    return { key, id: view.id };
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
    this.byToken = new Map();
    this.askedAt = at;
    this.tookMs = performance.now() - at;
  }
}
