/** The lease by which the control plane knows that this node lives. */
import { PATCH_TYPE, apiPath, isStatus } from "../../kube/api-server.ts";
import type { ApiServer } from "../../kube/api-server.ts";

/** Seconds for which it holds, as the kubelet's. */
const DURATION_SECONDS = 40;
const GROUP = "coordination.k8s.io/v1";
const NAMESPACE = "kube-node-lease";

/** RFC 3339 with the six digits that leases have. */
const micro = (): string => new Date().toISOString().replace(/Z$/, "000Z");

/** Renew a node's lease; it is made when there is none. @throws ApiError, ERR_NODE_API */
export async function renewLease(api: ApiServer, node: string, signal: AbortSignal): Promise<void> {
  const spec = {
    holderIdentity: node,
    leaseDurationSeconds: DURATION_SECONDS,
    renewTime: micro(),
  };
  try {
    await api.request("PATCH", apiPath(GROUP, "namespaces", NAMESPACE, "leases", node), {
      body: { spec },
      type: PATCH_TYPE.merge,
      signal,
    });
  } catch (error) {
    if (!isStatus(error, 404)) throw error;
    await api.request("POST", apiPath(GROUP, "namespaces", NAMESPACE, "leases"), {
      body: { apiVersion: GROUP, kind: "Lease", metadata: { name: node }, spec },
      signal,
    });
  }
}
