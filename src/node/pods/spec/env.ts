/** A container's variables, and `$(NAME)` in what it is started with. */
import type { Pod, PodContainer } from "../../../schema/pod.ts";
import { fieldOf, resourceText } from "./downward.ts";
import type { HostFacts } from "./downward.ts";
import { PodNotReadyError } from "./failure.ts";
import type { References } from "../files/references.ts";

type Variable = NonNullable<PodContainer["env"]>[number];

/**
 * `$(NAME)` of known names replaced; `$$` stands for `$`.
 * @param unknown what stands for another name; default: as it is written
 */
export function expand(
  text: string,
  variables: ReadonlyMap<string, string>,
  unknown: (name: string, written: string) => string = (_name, written) => written,
): string {
  return text.replaceAll(/\$(?:\$|\(([^()]*)\))/g, (whole, name: string | undefined) =>
    name === undefined ? "$" : (variables.get(name) ?? unknown(name, whole)),
  );
}

/** Most bytes of a variable, its name, the `=` and the NUL behind it included (MAX_ARG_STRLEN of Linux). */
const MAX_VARIABLE = 131_072;

/** Names that are none to a shell are left out of what is taken over as a whole. */
const NAME = /^[^=\0]+$/;

async function fromReference(
  { valueFrom, name }: Variable,
  pod: Pod,
  references: References,
  host: HostFacts,
): Promise<string | undefined> {
  if (valueFrom?.fieldRef) return fieldOf(pod, valueFrom.fieldRef.fieldPath, host);
  if (valueFrom?.resourceFieldRef) return resourceText(pod, valueFrom.resourceFieldRef);
  const secret = valueFrom?.secretKeyRef;
  const ref = secret ?? valueFrom?.configMapKeyRef;
  if (!ref) return "";
  const optional = ref.optional === true;
  const kind = secret ? "secrets" : "configmaps";
  const content = await references.content(kind, ref.name, optional);
  const value = content?.values.get(ref.key);
  if (value !== undefined && content?.binary.has(ref.key) !== true) return value.toString("utf8");
  if (optional) return undefined;
  throw new PodNotReadyError(
    "CreateContainerConfigError",
    `couldn't find key ${ref.key} in ${kind} ${pod.metadata.namespace}/${ref.name} for ${name}`,
  );
}

/** Where who has a token of its ServiceAccount finds the API server; by its own address, as there are no Services. */
function apiServerOf(
  pod: Pod,
  container: PodContainer,
  { apiServer }: HostFacts,
): [string, string][] {
  const hasToken = (container.volumeMounts ?? []).some(({ name }) =>
    pod.spec.volumes
      ?.find((volume) => volume.name === name)
      ?.projected?.sources?.some((source) => source.serviceAccountToken),
  );
  if (!hasToken || apiServer === undefined) return [];
  const { hostname, port } = new URL(apiServer);
  const number = port === "" ? "443" : port;
  return [
    ["KUBERNETES_SERVICE_HOST", hostname.replace(/^\[(.*)\]$/, "$1")],
    ["KUBERNETES_SERVICE_PORT", number],
    ["KUBERNETES_SERVICE_PORT_HTTPS", number],
  ];
}

/** Why a kernel starts no program with a variable; undefined: it does. */
function wrongIn(name: string, value: string): string | undefined {
  if (value.includes("\0")) return "has a NUL byte";
  const most = MAX_VARIABLE - Buffer.byteLength(name) - 2;
  return Buffer.byteLength(value) > most ? `is longer than ${most} bytes` : undefined;
}

/**
 * The variables that a container is started with, in order.
 * @throws PodNotReadyError for what is not there yet, PodRefusedError for fields that are not offered
 */
export async function variablesOf(
  pod: Pod,
  container: PodContainer,
  references: References,
  host: HostFacts,
): Promise<Map<string, string>> {
  const variables = new Map<string, string>(apiServerOf(pod, container, host));
  for (const { prefix, configMapRef, secretRef } of container.envFrom ?? []) {
    const ref = configMapRef ?? secretRef;
    if (!ref) continue;
    const kind = configMapRef ? "configmaps" : "secrets";
    const content = await references.content(kind, ref.name, ref.optional === true);
    for (const [key, value] of content?.values ?? []) {
      const name = `${prefix ?? ""}${key}`;
      if (content?.binary.has(key) !== true && NAME.test(name))
        variables.set(name, value.toString("utf8"));
    }
  }
  for (const variable of container.env ?? []) {
    const value = variable.valueFrom
      ? await fromReference(variable, pod, references, host)
      : expand(variable.value ?? "", variables);
    if (value !== undefined) variables.set(variable.name, value);
  }
  for (const [name, value] of variables) {
    const wrong = wrongIn(name, value);
    // By its name alone: it may be a Secret's. What it comes from may be changed.
    if (wrong !== undefined) {
      throw new PodNotReadyError(
        "CreateContainerConfigError",
        `the value of the variable ${name.slice(0, 200)} ${wrong}`,
      );
    }
  }
  return variables;
}
