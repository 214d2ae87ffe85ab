/** Watchers that clients poll instead of listening to; bounded in number, time and events. */
import { randomUUID } from "node:crypto";
import { watchFiles } from "../../../agent/files.ts";
import { E2bError } from "../errors.ts";
import { changeOf, rightsOf } from "./entries.ts";
import type { FilesContext } from "./entries.ts";

/** Most watchers of one project, and events that nobody has taken yet of one and of all of them. */
const MAX_WATCHERS = 1_000;
const MAX_EVENTS = 10_000;
const MAX_PROJECT_EVENTS = 50_000;
/** A watcher that nobody has asked for so long is taken away, in milliseconds. */
const FORGOTTEN_MS = 60 * 60_000;
/**
 * Events of a change come a little later than the answer to the call that made it; whoever asks then
 * is to find them. Nothing may come for the first time before they are told, and for the second at most, in milliseconds.
 */
const SETTLED_MS = 80;
const SETTLING_MS = 800;

interface Watcher {
  vmId: string;
  project: string;
  events: object[];
  stop: AbortController;
  asked: number;
  /** When the last event came. */
  told: number;
}

/** The watchers of one gateway. */
export class Watchers {
  private readonly all = new Map<string, Watcher>();

  /** Begin to watch; on return no later change is missed. */
  async create(
    context: FilesContext,
    root: string,
    options: { recursive: boolean; includeEntry: boolean },
  ): Promise<string> {
    for (const [id, { asked }] of this.all) if (Date.now() - asked > FORGOTTEN_MS) this.drop(id);
    const { project } = context.vm.view;
    if (this.sum(project, () => 1) >= MAX_WATCHERS)
      throw new E2bError("resource_exhausted", "too many watchers");
    const id = randomUUID();
    const watcher: Watcher = {
      vmId: context.vm.id,
      project,
      events: [],
      stop: new AbortController(),
      asked: Date.now(),
      told: 0,
    };
    this.all.set(id, watcher);
    const ready = Promise.withResolvers<void>();
    const run = async (): Promise<void> => {
      const changes = watchFiles(context.vm.transport, root, {
        recursive: options.recursive,
        ...rightsOf(context.user),
        signal: watcher.stop.signal,
        onReady: () => ready.resolve(),
      });
      for await (const event of changes) {
        const change = await changeOf(context, root, event, options.includeEntry);
        watcher.told = Date.now();
        if (change === undefined || watcher.events.length >= MAX_EVENTS) continue;
        if (this.sum(project, ({ events }) => events.length) < MAX_PROJECT_EVENTS)
          watcher.events.push(change);
      }
    };
    // Its end is seen by whoever asks next.
    run().then(ready.resolve, (error: unknown) => {
      ready.reject(error);
      this.all.delete(id);
    });
    await ready.promise;
    return id;
  }

  /** Of all watchers of a project: one's are not to take another's place. */
  private sum(project: string, what: (watcher: Watcher) => number): number {
    let sum = 0;
    for (const one of this.all.values()) if (one.project === project) sum += what(one);
    return sum;
  }

  private of(vmId: string, id: string): Watcher {
    const found = this.all.get(id);
    if (found === undefined || found.vmId !== vmId) {
      throw new E2bError("not_found", `watcher with id ${id} not found`);
    }
    return found;
  }

  /** What has happened since the last call. @throws not_found */
  async take(vmId: string, id: string): Promise<object[]> {
    const watcher = this.of(vmId, id);
    const asked = Date.now();
    watcher.asked = asked;
    for (let quiet = 0; quiet < SETTLED_MS && Date.now() - asked < SETTLING_MS;) {
      await new Promise((resolve) => setTimeout(resolve, SETTLED_MS - quiet));
      quiet = Date.now() - Math.max(asked, watcher.told);
    }
    return watcher.events.splice(0);
  }

  /** Stop watching. @throws not_found */
  remove(vmId: string, id: string): void {
    this.of(vmId, id);
    this.drop(id);
  }

  private drop(id: string): void {
    this.all.get(id)?.stop.abort(new Error("the watcher was removed"));
    this.all.delete(id);
  }
}
