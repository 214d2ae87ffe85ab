/** What has happened to containers, images, volumes and networks: the last of it, and what follows. */
import type { Filters } from "./http/filters.ts";
import { repositoryOf, withTag } from "./images/names.ts";

/** Most events that are kept. */
const KEPT = 1024;

/** One event, as clients see it. */
export interface DockerEvent {
  Type: "container" | "image" | "volume" | "network" | "daemon";
  Action: string;
  Actor: { ID: string; Attributes: Record<string, string> };
  scope: "local";
  time: number;
  timeNano: number;
  status?: string;
  id?: string;
  from?: string;
}

/** The millisecond that a time in seconds lies in: as numbers hold them, 1.001 s may be a little less than 1,001 ms. */
function millisecondOf(seconds: number): number {
  return Math.floor(seconds * 1000 + 0.001);
}

/** The events of one gateway. */
export class Events {
  private readonly kept: DockerEvent[] = [];
  private readonly listeners = new Set<(event: DockerEvent) => void>();

  /** Say that something has happened. */
  emit(
    type: DockerEvent["Type"],
    action: string,
    id: string,
    attributes: Record<string, string> = {},
  ): void {
    const now = Date.now();
    const event: DockerEvent = {
      ...(type === "container"
        ? {
            status: action,
            id,
            ...(attributes["image"] === undefined ? {} : { from: attributes["image"] }),
          }
        : {}),
      Type: type,
      Action: action,
      Actor: { ID: id, Attributes: attributes },
      scope: "local",
      time: Math.floor(now / 1000),
      timeNano: now * 1_000_000,
    };
    this.kept.push(event);
    if (this.kept.length > KEPT) this.kept.shift();
    for (const listener of this.listeners) listener(event);
  }

  /**
   * What is kept of a span of time, in seconds since the epoch; both ends belong to it. Events are known to the millisecond: what
   * happened in that of an end is in.
   */
  between(since: number, until = Number.POSITIVE_INFINITY): DockerEvent[] {
    const [from, to] = [millisecondOf(since), millisecondOf(until)];
    return this.kept.filter(({ timeNano }) => {
      const at = Math.round(timeNano / 1e6);
      return at >= from && at <= to;
    });
  }

  /** How many are told of what happens. */
  get listening(): number {
    return this.listeners.size;
  }

  /** Be told of what follows. @returns ends that */
  listen(listener: (event: DockerEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** Whether an image that an event is about is the one asked for: by a name with or without its tag, or by its ID. */
function isOfImage({ Type: type, Actor: { ID: id, Attributes: attributes } }: DockerEvent) {
  const name = (type === "image" ? attributes["name"] : attributes["image"]) ?? "";
  return (wish: string): boolean =>
    (type === "image" && id === wish) ||
    (name !== "" && (withTag(name) === withTag(wish) || repositoryOf(name) === wish));
}

/** Kinds of things that a filter can name; of some there are none here. */
const KINDS = "config container daemon network node plugin secret service volume".split(" ");

/** Filters of events. */
export const EVENT_FILTERS = [...KINDS, "event", "image", "label", "scope", "type"];

/** Whether an event is among those asked for. */
export function isWanted(event: DockerEvent, filters: Filters): boolean {
  const { Type: type, Action: action, Actor: actor } = event;
  const { Attributes: attributes } = actor;
  const ofKind =
    (kind: string) =>
    (wish: string): boolean =>
      type === kind && (actor.ID.startsWith(wish) || attributes["name"] === wish);
  return (
    filters.allows("type", (wish) => wish === type) &&
    filters.allows("event", (wish) => wish === action || action.startsWith(`${wish}:`)) &&
    filters.allows("scope", (wish) => wish === "local") &&
    KINDS.every((kind) => filters.allows(kind, ofKind(kind))) &&
    filters.allows("image", isOfImage(event)) &&
    filters.allowsLabels(attributes)
  );
}
