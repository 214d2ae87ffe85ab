/** The RuntimeClass that a pod names: which runtime its author wants, which may be another one than this. */
import { runtimeClassSchema } from "../../../schema/pod.ts";
import type { Pod } from "../../../schema/pod.ts";
import { validate } from "../../../schema/validate.ts";
import { apiPath, isStatus } from "../../../kube/api-server.ts";
import type { ApiServer } from "../../../kube/api-server.ts";
import { PodNotReadyError, PodRefusedError } from "./failure.ts";

/** The handler that RuntimeClasses name which are for these nodes. */
const HANDLER = "vmsan";

/** @throws PodRefusedError for a class of another runtime, PodNotReadyError for one that is not there */
export async function checkRuntimeClass({ spec }: Pod, api: ApiServer): Promise<void> {
  const name = spec.runtimeClassName;
  if (!name) return;
  const path = apiPath("node.k8s.io/v1", "runtimeclasses", name);
  let found: unknown;
  try {
    found = await api.request("GET", path);
  } catch (error) {
    if (!isStatus(error, 404)) throw error;
    throw new PodNotReadyError("CreateContainerConfigError", `runtimeclass "${name}" not found`);
  }
  const { handler } = validate(runtimeClassSchema, found, path, "ERR_NODE_API");
  if (handler === HANDLER) return;
  throw new PodRefusedError(
    "FieldNotOffered",
    `not offered on this node: spec.runtimeClassName: ${JSON.stringify(name)}: its handler is ${handler}, and this node's is ${HANDLER}`,
  );
}
