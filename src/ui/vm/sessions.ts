/** Shells of a VM that go on without anybody looking; the same ones that `vmsan connect` returns to. */
import type { VmView } from "../../model/api.ts";
import { call, openSocket, part } from "../api/client.ts";
import { GuestSocket, newStreamId } from "../api/stream.ts";
import type { StreamEvents } from "../api/stream.ts";

/** What stands before a session's name in the label of its stream, as in the command line. */
const PREFIX = "shell:";

/** A stream as the agent lists it, as far as it matters here. */
export interface StreamInfo {
  id: string;
  kind: string;
  label: string;
  argv: string[];
  running: boolean;
  detach: boolean;
  attached: number;
  startedAt: string;
  exit?: { exitCode: number; signal?: string };
  stdout: { start: string; end: string };
  stderr: { start: string; end: string };
}

/** All streams of a VM. */
export async function listStreams(vm: string, signal?: AbortSignal): Promise<StreamInfo[]> {
  const path = `/v1/vms/${part(vm)}/agent/v1/streams`;
  return (await call<{ streams: StreamInfo[] }>("GET", path, { signal })).streams;
}

/** Names of the sessions that run, the oldest first. */
export async function listSessions(vm: string, signal?: AbortSignal): Promise<string[]> {
  return (await listStreams(vm, signal))
    .filter(({ running, label }) => running && label.startsWith(PREFIX))
    .toSorted((a, b) => a.startedAt.localeCompare(b.startedAt))
    .map(({ label }) => label.slice(PREFIX.length));
}

/** Environments one over the other; `KEY` alone takes a variable away. */
function environment(vm: VmView): string[] {
  const merged = new Map<string, string>();
  for (const entry of [...(vm.image?.config.env ?? []), ...vm.defaults.env]) {
    const at = entry.indexOf("=");
    if (at < 0) merged.delete(entry);
    else merged.set(entry.slice(0, at), entry);
  }
  return [...merged.values()];
}

/** A login shell with the VM's defaults. */
function shellSpec(vm: VmView, name: string, rows: number, cols: number): object {
  const user = vm.defaults.user ?? vm.image?.config.user ?? "";
  const workdir = vm.defaults.workdir ?? vm.image?.config.workingDir ?? "";
  return {
    kind: "exec",
    argv: [],
    env: environment(vm),
    ...(workdir === "" ? {} : { workdir }),
    ...(user === "" ? {} : { user }),
    tty: { rows, cols, term: "xterm-256color" },
    stdin: true,
    detach: false,
    label: PREFIX + name,
  };
}

/** Where a session's output ends when one joins it: what is older was answered long ago. */
export interface Joined {
  socket: GuestSocket;
  /** Bytes printed before. */
  printed: number;
}

/** Return to the session of that name, or begin it. */
export async function joinSession(
  vm: VmView,
  name: string,
  size: { rows: number; cols: number },
  events: StreamEvents,
  signal: AbortSignal,
): Promise<Joined> {
  const found = (await listStreams(vm.id, signal)).find(
    ({ running, label }) => running && label === PREFIX + name,
  );
  const open = (path: string): WebSocket => openSocket(vm.id, path);
  signal.throwIfAborted();
  if (found !== undefined) {
    const socket = new GuestSocket(open, { id: found.id }, events);
    return { socket, printed: Number(found.stdout.end) };
  }
  const spec = shellSpec(vm, name, size.rows, size.cols);
  return { socket: new GuestSocket(open, { id: newStreamId(), spec }, events), printed: 0 };
}
