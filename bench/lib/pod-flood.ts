/**
 * Makes many pods at once and sees them run, then has them removed: node bench/lib/pod-flood.ts KUBECONFIG COUNT
 * Prints a line once all run, and at the end JSON: milliseconds until all were there, ran, were gone. Says on its error output
 * how far it is, every few seconds.
 */
import { POD_PATH, makePod, openCluster } from "./pods.ts";

/** Milliseconds between two words on how far it is. */
const TELL_MS = 5_000;
/** It is given up when nothing has changed for so long. */
const STALL_MS = 300_000;

const [file = "", count = "0"] = process.argv.slice(2);
const { api } = await openCluster(file);
// The watch is to wait for none of the other requests.
const { api: watcher } = await openCluster(file);
const begun = performance.now();
const since = (): number => Math.round(performance.now() - begun);

/** Pods as they become. */
interface Seen {
  metadata: { name: string };
  spec: { nodeName?: string };
  status?: { phase?: string; reason?: string; conditions?: { message?: string }[] };
}

/** In a few words how a pod is; of one that no node has, why. */
function stateOf({ spec, status }: Seen): string {
  const why = spec.nodeName === undefined ? (status?.conditions?.[0]?.message ?? "unbound") : "";
  return [status?.phase, status?.reason, why].filter(Boolean).join(" ");
}

/** Watch until something holds of all pods. */
async function until(holds: (running: number, all: number) => boolean): Promise<number> {
  const over = new AbortController();
  const states = new Map<string, string>();
  const counts = new Map<string, number>();
  let changedAt = performance.now();
  const count = (state: string, by: number): void => {
    counts.set(state, (counts.get(state) ?? 0) + by);
  };
  const take = (pod: Seen, gone: boolean): void => {
    const { name } = pod.metadata;
    const before = states.get(name);
    if (before !== undefined) count(before, -1);
    if (gone) states.delete(name);
    else {
      const state = stateOf(pod);
      states.set(name, state);
      count(state, 1);
    }
    changedAt = performance.now();
  };
  const tell = setInterval(() => {
    const how = Object.fromEntries([...counts].filter(([, number]) => number > 0));
    console.error(`${Math.round(since() / 1000)} s: ${JSON.stringify(how)}`);
    if (performance.now() - changedAt < STALL_MS) return;
    console.error(`nothing has changed for ${STALL_MS / 1000} s`);
    process.exit(1);
  }, TELL_MS);
  for await (const step of watcher.watch(POD_PATH, over.signal)) {
    if (step.kind === "all") {
      states.clear();
      counts.clear();
      for (const pod of step.objects) take(pod as Seen, false);
    } else take(step.object as Seen, step.kind === "gone");
    if (holds(counts.get("Running") ?? 0, states.size)) over.abort();
  }
  clearInterval(tell);
  return since();
}

/** Do it with each pod, as many at a time as there are connections. */
async function each(act: (name: string) => Promise<unknown>): Promise<void> {
  await Promise.all(
    Array.from({ length: Number(count) }, async (_, index) => await act(`pod-${index}`)),
  );
}

const running = until((now) => now === Number(count));
await each(async (name) => await makePod(api, name, 1, { image: "none", command: ["none"] }));
const made = since();
const ran = await running;
console.log("run");
const gone = until((_running, all) => all === 0);
const asked = since();
// Not all by one request: its answer comes when the last one is marked, which takes longer than any answer may.
await each(async (name) => await api.request("DELETE", `${POD_PATH}/${name}`));
console.log(JSON.stringify({ made, ran, gone: (await gone) - asked }));
api.close();
watcher.close();
