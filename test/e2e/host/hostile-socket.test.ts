/** The daemon's socket under those who may open it: giant and endless bodies, crowds, paths as attacks. */
import { readFileSync } from "node:fs";
import { request } from "node:http";
import type { OutgoingHttpHeaders } from "node:http";
import { connect } from "node:net";
import type { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, expect, test } from "vitest";
import { installation } from "../../fixtures/ladder.ts";
import { vmsanJson } from "../support.ts";

const CROWD = 2000;
const here = installation("nothing");
let socketPath = "";
let pid = 0;

beforeAll(async () => {
  pid = (await vmsanJson<{ pid: number }>(["daemon", "start"], here)).pid;
  socketPath = join(here.dir, "run/daemon.sock");
});

/** Resident memory of the daemon in MiB. */
function daemonMib(): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024);
}

/** The status of a request, or the errno with which its connection was ended. */
async function ask(
  method: string,
  path: string,
  body: Buffer | string = "",
  headers: OutgoingHttpHeaders = {},
): Promise<number | string> {
  return await new Promise((resolve) => {
    const call = request({ socketPath, method, path, headers, agent: false }, (reply) => {
      reply.resume().on("end", () => resolve(reply.statusCode ?? 0));
    });
    call.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    call.end(body);
  });
}

/** It still serves, and is the same process. */
async function serves(): Promise<void> {
  expect(await vmsanJson(["list"], here)).toMatchObject({ count: 0 });
  expect((await vmsanJson<{ pid: number }>(["daemon", "status"], here)).pid).toBe(pid);
}

test("giant and senseless bodies", async () => {
  const before = daemonMib();
  // Refused while it comes: 400, or the connection ends under the rest of it.
  expect([400, "EPIPE", "ECONNRESET"]).toContain(
    await ask("POST", "/v1/vms", Buffer.alloc(200 << 20, 32)),
  );
  expect(daemonMib() - before).toBeLessThan(100);
  for (const body of ["[".repeat(1_000_000), '{"__proto__":{"vcpus":1}}', "null", "\0", '"text"']) {
    expect([body.slice(0, 20), await ask("POST", "/v1/vms", body)]).toEqual([
      body.slice(0, 20),
      400,
    ]);
  }
  for (const headers of [{ "content-length": "-1" }, { "transfer-encoding": "chunked, chunked" }]) {
    expect(await ask("POST", "/v1/vms", "{}", headers)).toBe(400);
  }
  await serves();
});

test.each([
  ["/v1/vms/..%2f..%2fetc", 400],
  ["/v1/vms/%00", 400],
  ["/v1/vms/-rf", 400],
  ["/v1/vms/vm-%zz", 400],
  ["/v1/vms/vm-00000000/../../../etc/passwd", 404],
  ["/v1/vms/vm-00000000/agent/v1/../../../version", 404],
  ["/v1/kernels/..%2f..", 404],
  ["/v1/images/inspect?name=..%2F..%2Fx", 400],
  [`/v1/vms/${"a".repeat(5000)}`, 400],
])("%s is no way to anything", async (path, status) => {
  expect(await ask("GET", path)).toBe(status);
  expect([400, 404]).toContain(await ask("DELETE", path));
});

test(`${CROWD} connections that say nothing, then requests that never end`, async () => {
  const crowd: Socket[] = [];
  let lost = 0;
  for (let i = 0; i < CROWD; i += 1) {
    const one = connect(socketPath);
    one.on("error", () => (lost += 1));
    crowd.push(one);
    // The kernel's queue of connections is short.
    if (i % 100 === 99) await sleep(20);
  }
  await serves();
  for (const one of crowd) {
    one.write("POST /v1/vms HTTP/1.1\r\nhost: x\r\ncontent-length: 10000\r\n\r\n{");
  }
  await serves();
  console.log(`${CROWD} endless requests: ${daemonMib()} MiB, ${lost} connections lost`);
  expect(daemonMib()).toBeLessThan(400);
  for (const one of crowd) one.destroy();
  await serves();
});
