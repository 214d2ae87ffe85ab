/** What happens to VMs and to what they are made of: told to whoever watches, the last of it kept. */
import type { EventBody, EventType, VmsanEvent } from "../../model/event.ts";
import type { VmRecord } from "../../model/vm.ts";
import { Ring } from "../../util/flow/ring.ts";
import type { EventJournal } from "./event-journal.ts";

/** Events that are kept at least. */
export const EVENTS_KEPT = 10_000;
/** Refused connections of one VM that are told at once, and how many more each second. */
const DENIED_BURST = 20;
const DENIED_PER_SECOND = 2;
/** Longest text in an event. */
const MAX_TEXT = 300;

/** What is known of an event besides its type and its VM. */
export type EventData = Record<string, string | number | boolean | readonly string[] | undefined>;

/** Which VM an event is about, as far as is told. */
type Subject = Pick<VmRecord, "id" | "name" | "project">;

interface Bucket {
  tokens: number;
  at: number;
  /** Refused connections that were not told since the last one that was. */
  untold: number;
}

/** All events of one daemon. */
export class Events extends Ring<EventBody> {
  private readonly listeners: ((event: VmsanEvent) => void)[] = [];
  private readonly denials = new Map<string, Bucket>();

  private readonly journal: EventJournal | undefined;

  /** @param journal what earlier daemons have told, which later ones are to go on from; none: nobody does */
  constructor(journal?: EventJournal) {
    // Without one, later daemons go on from higher numbers: a reader of an earlier one sees that others are missing.
    super(EVENTS_KEPT, Date.now() * 1000, journal?.found);
    this.journal = journal;
  }

  override add(body: EventBody): VmsanEvent {
    const event = super.add(body);
    // Whoever follows is told in a later turn of the loop: it is on disk by then.
    this.journal?.append(event, () => this.since(0));
    for (const listener of this.listeners) listener(event);
    return event;
  }

  /** Be told of each event; must return quickly and never throw. */
  onEvent(listener: (event: VmsanEvent) => void): void {
    this.listeners.push(listener);
  }

  /** Something happened to a VM. */
  vm(type: EventType, { id, name, project }: Subject, data: EventData = {}): void {
    const vm = { id, ...(name === undefined ? {} : { name }) };
    this.add({ type, vm, project, data: plain(data) });
    if (type === "vm.removed") this.denials.delete(id);
  }

  /** Something happened that concerns no VM. */
  host(type: EventType, data: EventData): void {
    this.add({ type, data: plain(data) });
  }

  /** A connection was refused. Of a guest that is refused all the time only some are told. */
  denied(record: Subject, data: EventData): void {
    const now = performance.now();
    const bucket = this.denials.get(record.id) ?? { tokens: DENIED_BURST, at: now, untold: 0 };
    this.denials.set(record.id, bucket);
    const grown = bucket.tokens + ((now - bucket.at) / 1000) * DENIED_PER_SECOND;
    bucket.tokens = Math.min(DENIED_BURST, grown);
    bucket.at = now;
    if (bucket.tokens < 1) {
      bucket.untold += 1;
      return;
    }
    bucket.tokens -= 1;
    const { untold } = bucket;
    bucket.untold = 0;
    this.vm("network.denied", record, { ...data, ...(untold === 0 ? {} : { untold }) });
  }

  /** Events after a number that are kept; where some are missing, one of type `missed` says so. */
  *kept(from: number): Generator<VmsanEvent> {
    const last = from === 0 ? this.first - 1 : from;
    if (last > this.last || last + 1 < this.first) {
      yield missed(last, this.first - 1);
      yield* this.since(this.first - 1);
    } else yield* this.since(last);
  }

  /**
   * As {@link kept}, and those that come until the signal aborts.
   * @param from number after which they are wanted; 0: all that are kept; default: those to come
   */
  async *tell(signal: AbortSignal, from = this.last): AsyncGenerator<VmsanEvent> {
    let last = from === 0 ? this.first - 1 : from;
    for (const event of this.kept(from)) {
      last = event.seq;
      yield event;
    }
    for await (const event of this.follow(signal, last)) {
      if (event.seq !== last + 1) yield missed(last, event.seq - 1);
      last = event.seq;
      yield event;
    }
  }
}

/** What says that events up to a number are not kept, or were another daemon's. */
function missed(from: number, seq: number): VmsanEvent {
  return { seq, time: new Date().toISOString(), type: "missed", data: { from } };
}

/** Only what is known, texts cut: they may be a guest's. */
function plain(data: EventData): EventBody["data"] {
  const entries = Object.entries(data).flatMap(([key, value]) => {
    if (value === undefined) return [];
    return [[key, typeof value === "string" ? value.slice(0, MAX_TEXT) : value] as const];
  });
  return Object.fromEntries(entries);
}
