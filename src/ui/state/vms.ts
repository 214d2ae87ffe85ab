/** All VMs, kept up to date while somebody looks: told by events, asked for now and then. */
import type { VmPage, VmView } from "../../model/api.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import type { VmsanEvent } from "../../model/event.ts";
import { ApiError, ask, call, errorInfo, lines } from "../api/client.ts";
import { shortImage } from "./format.ts";
import { session, signOut } from "./session.ts";
import { Store } from "./store.ts";

/** What is known of VMs. */
export interface VmsState {
  /** Undefined before the first answer. */
  list?: VmView[];
  /** Why the list may be old. */
  error?: ErrorInfo;
}

/** Milliseconds between looks: while something is being made, and otherwise. */
const LOOK_MS = { busy: 1_000, calm: 10_000 };
/** Milliseconds before events are asked for again. */
const AGAIN_MS = 2_000;
/** Milliseconds in which events are gathered: less than eyes notice. */
const GATHER_MS = 50;
/** Most events that are kept. */
const MAX_EVENTS = 300;

/** The VMs of the key. */
export const vms = new Store<VmsState>({});

/** What has happened lately, the newest first. */
export const events = new Store<VmsanEvent[]>([]);

let asking: Promise<void> | undefined;
let again = false;

async function look(): Promise<void> {
  try {
    const list: VmView[] = [];
    let after = "";
    do {
      const page = await call<VmPage>("GET", `/v1/vms${after}`);
      list.push(...page.vms);
      after = page.next === undefined ? "" : `?after=${encodeURIComponent(page.next)}`;
    } while (after !== "");
    const same = JSON.stringify(list) === JSON.stringify(vms.value.list);
    if (!same || vms.value.error !== undefined) vms.value = { list };
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) signOut();
    else vms.value = { ...vms.value, error: errorInfo(error) };
  }
}

/** Ask for the list now; a question that is under way is followed by another one. */
export async function refreshVms(): Promise<void> {
  if (asking !== undefined) {
    again = true;
    return await asking;
  }
  asking = (async () => {
    do {
      again = false;
      await look();
    } while (again);
  })().finally(() => (asking = undefined));
  await asking;
}

/** Take events up together that come together: all of an hour may. */
function takeUp(fresh: VmsanEvent[]): void {
  events.value = [...fresh.reverse(), ...events.value].slice(0, MAX_EVENTS);
  if (fresh.some(({ type }) => /^(?:vm|snapshot|missed)/.test(type))) void refreshVms();
}

/** Read events until the signal aborts or the connection breaks. */
async function readEvents(signal: AbortSignal): Promise<void> {
  const last = events.value[0]?.seq;
  const hourAgo = new Date(Date.now() - 3_600_000).toISOString();
  const from = last === undefined ? `after=${encodeURIComponent(hourAgo)}` : `since=${last}`;
  const reply = await ask("GET", `/v1/events?follow=true&${from}`, { signal });
  // What fell before the list was asked for is in the list.
  void refreshVms();
  let fresh: VmsanEvent[] = [];
  for await (const line of lines(reply)) {
    if (fresh.length === 0) {
      setTimeout(() => {
        takeUp(fresh);
        fresh = [];
      }, GATHER_MS);
    }
    fresh.push(JSON.parse(line) as VmsanEvent);
  }
}

/** Keep the list fresh while the page is in sight. @returns ends it */
export function watchVms(): () => void {
  const ending = new AbortController();
  const { signal } = ending;
  // A hidden page gives its connection back: browsers have six for each server.
  let sight = new AbortController();
  const seen = (): boolean => document.visibilityState === "visible" && Boolean(session.value);
  const follow = async (): Promise<void> => {
    while (!signal.aborted && seen()) {
      const both = AbortSignal.any([signal, sight.signal]);
      await readEvents(both).catch(() => undefined);
      if (both.aborted) return;
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  };
  const change = (): void => {
    sight.abort();
    sight = new AbortController();
    if (!seen()) return;
    void refreshVms();
    void follow();
  };
  let last = 0;
  const timer = setInterval(() => {
    const busy = vms.value.list?.some(({ status }) => status === "creating");
    const every = busy === true || vms.value.error !== undefined ? LOOK_MS.busy : LOOK_MS.calm;
    if (!seen() || Date.now() - last < every) return;
    last = Date.now();
    void refreshVms();
  }, LOOK_MS.busy);
  change();
  document.addEventListener("visibilitychange", change);
  return () => {
    ending.abort();
    clearInterval(timer);
    document.removeEventListener("visibilitychange", change);
    events.value = [];
    vms.value = {};
  };
}

/** The name of a VM for people. */
export const vmName = (vm: Pick<VmView, "id" | "name">): string => vm.name ?? vm.id;

/** What a VM is made of, in a word. */
export function sourceOf(vm: Pick<VmView, "image" | "runtime">): string {
  return vm.runtime ?? (vm.image === undefined ? "own disk" : shortImage(vm.image.name));
}
