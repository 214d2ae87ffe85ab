/**
 * bench/cluster-exec: `kubectl exec POD true` against `vmsan exec VM true`, in the same guest, by turns, and what a pod's creation
 * to its first command takes against a VM's: a control plane and one host in network namespaces (test/cluster), real guests.
 *
 *   node bench/cluster-exec.ts [--rounds N]      with the kernel of the VMSAN_DIR that is set; as root
 *
 * Prints JSON lines.
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Cluster } from "../test/cluster/cluster.ts";
import { Host } from "../test/cluster/host.ts";
import { Network } from "../test/cluster/namespaces.ts";
import { toolsArchive } from "../test/cluster/tools-image.ts";
import { vmsanBin } from "../test/e2e/support.ts";
import { bench } from "./lib/bench.ts";
import { byTurns, costOf, median, report } from "./lib/measure.ts";
import { TOLERATIONS } from "./lib/pods.ts";

const { values: flags } = parseArgs({ options: { rounds: { type: "string", default: "40" } } });

await bench("cluster-exec", async ({ dir, defer }) => {
  const archive = await toolsArchive(join(dir, "image"), "1");
  const cluster = await Cluster.start();
  defer(async () => await cluster.close());
  const host = await Host.start(cluster, "host-1", { driver: "auto", archives: [archive.path] });
  const started = performance.now();
  await cluster.apply({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "one" },
    spec: {
      tolerations: TOLERATIONS,
      automountServiceAccountToken: false,
      terminationGracePeriodSeconds: 1,
      containers: [{ name: "main", image: archive.image, command: ["sleep", "1000000"] }],
    },
  });
  await cluster.ok(["wait", "--for=condition=Ready", "pod/one", "--timeout=240s"], {
    timeoutMs: 300_000,
  });
  report({ name: "create to ready", ms: performance.now() - started });
  const [vm] = await host.vms();
  const inside = Network.inside(cluster.network.hub) as [string, ...string[]];
  const kubectl = [cluster.programs.kubectl.newest, `--kubeconfig=${cluster.admin}`];
  const env = { ...process.env, HOME: cluster.dir, VMSAN_DIR: host.dir };
  const costs = await byTurns(Number(flags.rounds), {
    // What kubectl takes for itself and its first question.
    asked: async () => await costOf([...inside, ...kubectl, "get", "pod", "one"], { env }),
    kubectl: async () =>
      await costOf([...inside, ...kubectl, "exec", "one", "--", "true"], { env }),
    vmsan: async () => await costOf([vmsanBin, "exec", vm?.id ?? "", "true"], { env }),
  });
  report({ name: "kubectl exec POD true", ...costs.kubectl });
  report({ name: "vmsan exec VM true", ...costs.vmsan });
  report({ name: "kubectl get POD", ...costs.asked });
  report({ name: "ratio of wall times", value: costs.kubectl.wallMs / costs.vmsan.wallMs });
  const starts = 5;
  const script = join(import.meta.dirname, "lib/pod-start.ts");
  const words = [cluster.admin, archive.image, String(starts)];
  const { code, stdout, stderr } = await cluster.inHub([process.execPath, script, ...words], {
    timeoutMs: 600_000,
  });
  if (code !== 0) throw new Error(stderr);
  const alone: number[] = [];
  for (let round = 0; round < starts; round += 1) {
    const begun = performance.now();
    const made = await host.vmsan.create({
      image: archive.image,
      pull: "never",
      vcpus: 1,
      memory: 512,
    });
    await made.exec(["true"]);
    alone.push(performance.now() - begun);
    await host.vmsan.remove(made.id, { force: true });
  }
  const pods = JSON.parse(stdout.toString()) as number[];
  report({ name: "pod: create to the end of its first command", ms: median(pods) });
  report({ name: "VM: the same on the host", ms: median(alone) });
});
