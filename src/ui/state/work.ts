/** Long work that was begun here: what it does now, and how it ended. */
import type { ErrorInfo } from "../../model/errors.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import { call, errorInfo } from "../api/client.ts";
import { refreshVms } from "./vms.ts";
import { Store } from "./store.ts";

/** One piece of work. */
export interface Job {
  id: number;
  title: string;
  state: "running" | "done" | "failed";
  /** Latest step, in words. */
  step: string;
  /** 0–1 where it is known. */
  share?: number;
  error?: ErrorInfo;
  /** Where it was asked for, to be asked otherwise once it has failed. */
  from?: string;
  /** Stops it; absent when it cannot be stopped. */
  stop?: () => void;
}

/** All of it, the newest first. */
export const jobs = new Store<Job[]>([]);

/** Milliseconds that finished work stays in sight. */
const LINGER_MS = 4_000;

let count = 0;

function change(id: number, what: Partial<Job>): void {
  jobs.value = jobs.value.map((job) => (job.id === id ? { ...job, ...what } : job));
}

/** Take a piece of work out of sight. */
export function dismiss(id: number): void {
  jobs.value = jobs.value.filter((job) => job.id !== id);
}

/** How far transfers are, all items of a phase together. */
class Tally {
  private readonly items = new Map<string, ProgressEvent>();
  take(event: ProgressEvent): { step: string; share?: number } {
    this.items.set(`${event.phase} ${event.item ?? ""}`, event);
    const same = [...this.items.values()].filter(
      ({ phase, total }) => phase === event.phase && total !== undefined,
    );
    const total = same.reduce((sum, one) => sum + (one.total ?? 0), 0);
    const done = same.reduce((sum, one) => sum + (one.done ?? 0), 0);
    const step = [event.phase, event.message ?? event.item].filter(Boolean).join(": ");
    return { step, share: total > 0 ? Math.min(1, done / total) : undefined };
  }
}

/** The gateway stops what nobody waits for: have the browser ask first. */
const askFirst = (event: BeforeUnloadEvent): void => event.preventDefault();

/**
 * Do something long in sight of the user.
 * @param from address of the form that asked for it
 * @returns its result; undefined when it failed, which has been shown then
 */
export async function doWork<T>(
  title: string,
  body: (report: (event: ProgressEvent) => void, signal: AbortSignal) => Promise<T>,
  from?: string,
): Promise<T | undefined> {
  count += 1;
  const id = count;
  const abort = new AbortController();
  const stop = (): void => abort.abort(new Error("Stopped"));
  jobs.value = [{ id, title, state: "running", step: "", from, stop }, ...jobs.value];
  addEventListener("beforeunload", askFirst);
  const tally = new Tally();
  try {
    const result = await body((event) => change(id, tally.take(event)), abort.signal);
    change(id, { state: "done", step: "", share: 1, stop: undefined });
    setTimeout(() => dismiss(id), LINGER_MS);
    return result;
  } catch (error) {
    const info = abort.signal.aborted ? { code: "", message: "Stopped" } : errorInfo(error);
    change(id, { state: "failed", error: info, stop: undefined });
    return undefined;
  } finally {
    const others = jobs.value.some(({ state }) => state === "running");
    if (!others) removeEventListener("beforeunload", askFirst);
    void refreshVms();
  }
}

/**
 * A call without progress, shown as work all the same: it may take a while, and it may fail.
 * @returns whether it succeeded
 */
export async function doCall(
  title: string,
  method: string,
  path: string,
  body?: object,
): Promise<boolean> {
  const done = await doWork(title, async (_, signal) => {
    await call(method, path, { signal, ...(body === undefined ? {} : { body }) });
    return true;
  });
  return done === true;
}
