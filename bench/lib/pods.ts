/** Pods for measurements, in the namespace `default` of the cluster that a kubeconfig names. */
import { apiPath } from "../../src/kube/api-server.ts";
import { KubeClient } from "../../src/kube/client.ts";
import type { Identity } from "../../src/kube/identity.ts";
import { readKubeconfig } from "../../src/kube/kubeconfig.ts";

/** Where they are. */
export const POD_PATH = apiPath("v1", "namespaces", "default", "pods");

/** Also of a disk that others have filled: no pod would be bound, and what is measured needs next to none of it. */
export const TOLERATIONS = ["vmsan.io/node", "node.kubernetes.io/disk-pressure"].map((key) => ({
  key,
  operator: "Exists",
}));

/** The cluster. @param file path of the kubeconfig */
export async function openCluster(file: string): Promise<{ api: KubeClient; identity: Identity }> {
  const { identity } = await readKubeconfig({ file });
  return { api: new KubeClient(identity), identity };
}

/** Make one. @param graceSeconds that its command has at its end */
export async function makePod(
  api: KubeClient,
  name: string,
  graceSeconds: number,
  container: { image: string; command: string[] },
): Promise<void> {
  await api.request("POST", POD_PATH, {
    body: {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name },
      spec: {
        tolerations: TOLERATIONS,
        automountServiceAccountToken: false,
        terminationGracePeriodSeconds: graceSeconds,
        containers: [{ name: "main", ...container }],
      },
    },
  });
}
