/**
 * Makes many pods at once and sees them run, then has them removed: node bench/lib/pod-flood.ts KUBECONFIG COUNT
 * Prints JSON: milliseconds until all were there, ran, were gone.
 */
import { POD_PATH, makePod, openCluster } from "./pods.ts";

const [file = "", count = "0"] = process.argv.slice(2);
const { api } = await openCluster(file);
const begun = performance.now();
const since = (): number => Math.round(performance.now() - begun);

/** Pods by name, as they become. */
interface Seen {
  metadata: { name: string };
  status?: { phase?: string };
}

/** Watch until something holds of all pods. */
async function until(holds: (running: number, all: number) => boolean): Promise<number> {
  const over = new AbortController();
  const phases = new Map<string, string>();
  const take = ({ metadata, status }: Seen): unknown =>
    phases.set(metadata.name, status?.phase ?? "");
  for await (const step of api.watch(POD_PATH, over.signal)) {
    if (step.kind === "all") {
      phases.clear();
      for (const pod of step.objects) take(pod as Seen);
    } else if (step.kind === "set") take(step.object as Seen);
    else phases.delete((step.object as Seen).metadata.name);
    const running = [...phases.values()].filter((phase) => phase === "Running").length;
    if (holds(running, phases.size)) over.abort();
  }
  return since();
}

const running = until((now) => now === Number(count));
await Promise.all(
  Array.from({ length: Number(count) }, async (_, index) => {
    await makePod(api, `pod-${index}`, 1, { image: "none", command: ["none"] });
  }),
);
const made = since();
const ran = await running;
const gone = until((_running, all) => all === 0);
const asked = since();
await api.request("DELETE", POD_PATH);
console.log(JSON.stringify({ made, ran, gone: (await gone) - asked }));
api.close();
