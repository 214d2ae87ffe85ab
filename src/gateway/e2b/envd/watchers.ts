/** Watchers that clients poll instead of listening to; bounded in number, time and events. */
import { randomUUID } from "node:crypto";
import { watchFiles } from "../../../agent/files.ts";
import { E2bError } from "../errors.ts";
import { changeOf } from "./entries.ts";
import type { FilesContext } from "./entries.ts";

const MAX_WATCHERS = 1_000;
const MAX_EVENTS = 10_000;
/** A watcher that nobody has asked for so long is taken away, in milliseconds. */
const FORGOTTEN_MS = 60 * 60_000;

interface Watcher {
  vmId: string;
  events: object[];
  stop: AbortController;
  asked: number;
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
    if (this.all.size >= MAX_WATCHERS)
      throw new E2bError("resource_exhausted", "too many watchers");
    const id = randomUUID();
    const watcher: Watcher = {
      vmId: context.vm.id,
      events: [],
      stop: new AbortController(),
      asked: Date.now(),
    };
    this.all.set(id, watcher);
    const ready = Promise.withResolvers<void>();
    const run = async (): Promise<void> => {
      const changes = watchFiles(context.vm.transport, root, {
        recursive: options.recursive,
        user: context.user.name,
        signal: watcher.stop.signal,
        onReady: () => ready.resolve(),
      });
      for await (const event of changes) {
        const change = await changeOf(context, root, event, options.includeEntry);
        if (change !== undefined && watcher.events.length < MAX_EVENTS) watcher.events.push(change);
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

  private of(vmId: string, id: string): Watcher {
    const found = this.all.get(id);
    if (found === undefined || found.vmId !== vmId) {
      throw new E2bError("not_found", `watcher with id ${id} not found`);
    }
    return found;
  }

  /** What has happened since the last call. @throws not_found */
  take(vmId: string, id: string): object[] {
    const watcher = this.of(vmId, id);
    watcher.asked = Date.now();
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
