/**
 * From a pod's creation to the end of its first command, as fast as the API lets it be known:
 * node bench/lib/pod-start.ts KUBECONFIG IMAGE ROUNDS
 * Prints JSON: milliseconds of each round.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { WebSocket } from "ws";
import { POD_PATH, makePod, openCluster } from "./pods.ts";

const [file = "", image = "", rounds = "1"] = process.argv.slice(2);
const { api, identity } = await openCluster(file);

/** Run `true` in a pod. @returns whether it was run */
async function first(name: string): Promise<boolean> {
  const { url } = api;
  const query = "command=true&stdout=true&container=main";
  const socket = new WebSocket(
    `${url.replace(/^http/, "ws")}${POD_PATH}/${name}/exec?${query}`,
    "v5.channel.k8s.io",
    identity.tls(),
  );
  return await new Promise((resolve) => {
    socket.on("error", () => resolve(false));
    socket.on("message", (data: Buffer) => {
      if (data[0] === 3) resolve(data.toString().includes("Success"));
    });
    socket.on("close", () => resolve(false));
  });
}

async function round(name: string): Promise<number> {
  const begun = performance.now();
  const over = new AbortController();
  await makePod(api, name, 0, { image, command: ["sleep", "1000000"] });
  for await (const step of api.watch(
    `${POD_PATH}?fieldSelector=metadata.name%3D${name}`,
    over.signal,
  )) {
    const objects = step.kind === "all" ? step.objects : [step.object];
    const [pod] = objects as { status?: { phase?: string } }[];
    if (pod?.status?.phase === "Running") over.abort();
  }
  if (!(await first(name))) throw new Error(`${name} has run nothing`);
  const ms = performance.now() - begun;
  await api.request("DELETE", `${POD_PATH}/${name}`);
  return ms;
}

const all: number[] = [];
for (let index = 0; index < Number(rounds); index += 1) {
  all.push(await round(`first-${index}`));
  // What is removed is not to be in the way of the next one.
  await sleep(1_000);
}
console.log(JSON.stringify(all));
api.close();
