/** What a pod's command prints, where a VM would have its console. */
import { Readable } from "node:stream";
import { apiPath } from "../kube/api-server.ts";
import type { KubeClient } from "../kube/client.ts";
import type { Pod } from "../schema/pod.ts";

/** All bytes but the first so many. */
async function* behind(source: Readable, from: number): AsyncGenerator<Buffer> {
  let left = from;
  for await (const chunk of source as AsyncIterable<Buffer>) {
    if (left < chunk.length) yield chunk.subarray(left);
    left = Math.max(0, left - chunk.length);
  }
}

/** The log of a pod. @param query of the console's route: `?follow=…&from=BYTES` */
export async function podLog(
  api: KubeClient,
  { metadata: { namespace, name }, spec }: Pod,
  query: string,
  signal?: AbortSignal,
): Promise<Readable> {
  const wanted = new URLSearchParams(query);
  const words = new URLSearchParams({
    container: spec.containers[0]?.name ?? "",
    follow: String(wanted.get("follow") === "true"),
  });
  const path = apiPath("v1", "namespaces", namespace, "pods", name, "log");
  const source = await api.download(`${path}?${words.toString()}`, signal);
  const from = Number(wanted.get("from") ?? 0);
  return Readable.from(behind(source, Number.isSafeInteger(from) ? from : 0), {
    objectMode: false,
  });
}
