/** Objects that tests of clusters make. */
import { IMAGE } from "./tools-image.ts";

/** Where pods are that need no guest. */
const FAKE = { driver: "fake" };
/** Where pods boot. */
export const REAL = { driver: "real" };

/** Pods as the API server has them. */
export interface PodList {
  items: {
    metadata: { name: string; uid: string; deletionTimestamp?: string };
    spec: { nodeName?: string };
    status: {
      phase: string;
      containerStatuses?: { restartCount: number; state?: { running?: object } }[];
    };
  }[];
}

/** What every pod for vmsan says. */
export function podSpec(
  spec: Record<string, unknown>,
  where: Record<string, string> = FAKE,
): object {
  const { container, ...rest } = spec as { container: Record<string, unknown> };
  return {
    nodeSelector: { "vmsan.io/node": "true", ...where },
    tolerations: [{ key: "vmsan.io/node", operator: "Exists" }],
    automountServiceAccountToken: false,
    terminationGracePeriodSeconds: 1,
    ...rest,
    containers: [
      {
        name: "main",
        image: `${IMAGE}:1`,
        command: ["sleep", "1000000"],
        resources: { limits: { cpu: "50m", memory: "128Mi" } },
        ...container,
      },
    ],
  };
}

/** A pod. */
export function pod(name: string, spec: Record<string, unknown> = {}, where = FAKE): object {
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, labels: { app: name } },
    spec: podSpec({ container: {}, ...spec }, where),
  };
}

/** A deployment of pods that do nothing. */
export function deployment(
  name: string,
  replicas: number,
  spec: Record<string, unknown> = {},
  where = FAKE,
): object {
  return {
    apiVersion: "apps/v1",
    kind: "Deployment",
    metadata: { name },
    spec: {
      replicas,
      selector: { matchLabels: { app: name } },
      template: {
        metadata: { labels: { app: name } },
        spec: podSpec({ container: {}, ...spec }, where),
      },
    },
  };
}
