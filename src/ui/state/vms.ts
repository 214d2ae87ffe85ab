/** All VMs, kept up to date while somebody looks. */
import type { VmView } from "../../model/api.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import { ApiError, call, errorInfo } from "../api/client.ts";
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

/** Milliseconds between looks. */
const LOOK_MS = 2_000;

/** The VMs of the key. */
export const vms = new Store<VmsState>({});

let asking: Promise<void> | undefined;
let again = false;

async function ask(): Promise<void> {
  try {
    const { vms: list } = await call<{ vms: VmView[] }>("GET", "/v1/vms");
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
      await ask();
    } while (again);
  })().finally(() => (asking = undefined));
  await asking;
}

/** Keep the list fresh. @returns ends it */
export function watchVms(): () => void {
  const look = (): void => {
    if (document.visibilityState === "visible" && session.value) void refreshVms();
  };
  look();
  const timer = setInterval(look, LOOK_MS);
  document.addEventListener("visibilitychange", look);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", look);
  };
}

/** The name of a VM for people. */
export const vmName = (vm: Pick<VmView, "id" | "name">): string => vm.name ?? vm.id;

/** What a VM is made of, in a word. */
export function sourceOf(vm: Pick<VmView, "image" | "runtime">): string {
  return vm.runtime ?? (vm.image === undefined ? "own disk" : shortImage(vm.image.name));
}
