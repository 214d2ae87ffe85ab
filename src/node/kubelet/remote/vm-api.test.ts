/** What the API of a pod's VM answers to what no client of ours says. */
import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import type { Daemon } from "../../../client/daemon.ts";
import { POD_ANNOTATION, POD_UID_HEADER } from "../../../kube/pod-words.ts";
import { VERSION_HEADER } from "../../../model/api.ts";
import { packageVersion } from "../../../util/package.ts";
import type { RunningPod } from "../../pods/running.ts";
import type { RemoteSession } from "./session.ts";
import { serveVmApi } from "./vm-api.ts";

const pod = {
  vm: "vm-00000001",
  uid: "uid-1",
  namespace: "default",
  name: "web",
  pod: {
    metadata: { annotations: { [POD_ANNOTATION.command]: "none" } },
    spec: { containers: [{ name: "main" }] },
  },
} as unknown as RunningPod;

/** Ask once. @returns the status, and what the daemon was asked */
async function ask(
  line: string,
  body = "",
  uid = pod.uid,
): Promise<{ status: number; calls: string[] }> {
  const calls: string[] = [];
  const daemon = {
    call: async (method: string, path: string) => {
      calls.push(`${method} ${path}`);
      return await Promise.resolve({});
    },
  } as unknown as Daemon;
  const stdin = new PassThrough();
  let said = "";
  const session = {
    stdin,
    gone: new AbortController().signal,
    output: async (_stream: number, bytes: Buffer) => {
      said += bytes.toString("latin1");
      await Promise.resolve();
    },
    end: async () => {
      stdin.destroy();
      await Promise.resolve();
    },
  } as unknown as RemoteSession;
  const served = serveVmApi(session, pod, daemon);
  const headers = [
    "host: pod",
    "connection: close",
    `${VERSION_HEADER}: ${packageVersion()}`,
    `${POD_UID_HEADER}: ${uid}`,
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  stdin.write(`${line} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n${body}`);
  await served;
  return { status: Number(said.split(" ")[1]), calls };
}

test("calls of the guest go on; others, of another pod or that are none, go nowhere", async () => {
  expect(await ask("PUT /v1/vm/agent/v1/limits", `{"limits":[]}`)).toEqual({
    status: 200,
    calls: ["PUT /v1/vms/vm-00000001/agent/v1/limits"],
  });
  for (const [status, line, body, uid] of [
    [400, "PUT /v1/vm/agent/v1/limits", "{"],
    [404, "GET /v1/vm", "", "uid-2"],
    [404, "DELETE /v1/vm"],
    [404, "POST /v1/vm/stop"],
    [404, "PUT /v1/vm/policy", "{}"],
    [404, "GET /v1/vm/agent/../../vm-00000002/agent/v1/hello"],
    [404, "GET /v1/vm/agent/%2e%2e/%2e%2e/vm-00000002/agent/v1/hello"],
    [404, "GET /v1/vm/agent/v1/..%2f..%2fstop"],
    [404, "GET /v1/vms"],
  ] as const) {
    expect([line, await ask(line, body, uid)]).toEqual([line, { status, calls: [] }]);
  }
});
