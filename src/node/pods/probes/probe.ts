/**
 * probes/: looks at a container whether it has started, is ready and alive, and does what it wants done after its start and
 * before its end. Takes its VM; knows no pod.
 *
 * probe.ts: one look: a command in it, a request to it, a connection.
 */
import { connect as connectTls } from "node:tls";
import type { Duplex } from "node:stream";
import type { Vm } from "../../../client/vm.ts";
import { messageOf } from "../../../model/errors.ts";
import type { PodContainer, PodProbe } from "../../../schema/pod.ts";
import { httpModule } from "../../../util/process/http-modules.ts";
import { askHealth } from "./grpc.ts";
import { LONGEST_MS } from "../life/timers.ts";

/** Most of what a probe's answer is told in an event. */
const SAID = 400;

/** How much longer than a command's own limit its guest is waited for, in milliseconds. */
const DEAF_MS = 20_000;

/** A look's outcome; undefined: all is well. */
export type ProbeFailure = string | undefined;

/** A port that is a number, or the name of one of the container's. */
function portOf(container: PodContainer, port: string | number): number | undefined {
  if (typeof port === "number") return port;
  const named = container.ports?.find(({ name }) => name === port)?.containerPort;
  return named ?? (/^\d{1,5}$/.test(port) ? Number(port) : undefined);
}

async function runCommand(
  vm: Vm,
  argv: readonly string[],
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ProbeFailure> {
  // The guest ends it in time; one that does not even do that has failed as well.
  const limit = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs + DEAF_MS)]);
  const done = await vm.exec(argv, { timeoutMs, graceMs: 0, signal: limit });
  if (done.timedOut) return `command timed out after ${timeoutMs / 1000}s`;
  if (done.exitCode === 0) return undefined;
  const said = Buffer.concat([done.stdout, done.stderr]).toString("utf8").slice(0, SAID).trim();
  return `command ended with status ${done.exitCode}${said === "" ? "" : `: ${said}`}`;
}

/** A port on the guest's own loopback, or on any of its addresses. */
async function dial(vm: Vm, port: number): Promise<Duplex> {
  return await vm.dial({ network: "tcp", host: "127.0.0.1", port });
}

async function request(
  socket: Duplex,
  port: number,
  { path, scheme, httpHeaders }: NonNullable<PodProbe["httpGet"]>,
  signal: AbortSignal,
): Promise<ProbeFailure> {
  const secure = scheme === "HTTPS";
  // As the kubelet does: who serves is asked whether it is well, not who it is.
  const stream = secure ? connectTls({ socket, rejectUnauthorized: false }) : socket;
  const headers: Record<string, string> = {
    host: `127.0.0.1:${port}`,
    "user-agent": "kube-probe/vmsan",
    accept: "*/*",
    connection: "close",
  };
  for (const { name, value } of httpHeaders ?? []) headers[name.toLowerCase()] = value;
  return await new Promise<ProbeFailure>((resolve, reject) => {
    const asked = httpModule().request(
      {
        createConnection: () => stream,
        path: path?.startsWith("/") === true ? path : `/${path ?? ""}`,
        headers,
        signal,
      },
      (reply) => {
        const status = reply.statusCode ?? 0;
        reply.destroy();
        resolve(status >= 200 && status < 400 ? undefined : `HTTP status ${status}`);
      },
    );
    asked.on("error", reject);
    stream.on("error", reject);
    asked.end();
  });
}

/** Look once. Never throws but by its signal. */
export async function lookAt(
  vm: Vm,
  container: PodContainer,
  probe: PodProbe,
  signal: AbortSignal,
): Promise<ProbeFailure> {
  const timeoutMs = Math.min((probe.timeoutSeconds ?? 1) * 1000, LONGEST_MS - DEAF_MS);
  const limited = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
  let socket: Duplex | undefined;
  try {
    if (probe.exec) return await runCommand(vm, probe.exec.command ?? [], timeoutMs, signal);
    const named = probe.httpGet?.port ?? probe.tcpSocket?.port ?? probe.grpc?.port ?? 0;
    const port = portOf(container, named);
    if (port === undefined) return `there is no port ${named}`;
    const dialled = dial(vm, port);
    const late = Promise.withResolvers<never>();
    const giveUp = (): void => late.reject(new Error("no answer in time"));
    limited.addEventListener("abort", giveUp, { once: true });
    try {
      socket = await Promise.race([dialled, late.promise]);
    } catch (error) {
      // One that comes after all is not wanted any more; one that fails is told above.
      void dialled.then((open) => open.destroy()).catch(() => undefined);
      throw error;
    } finally {
      limited.removeEventListener("abort", giveUp);
    }
    socket.on("error", () => undefined);
    if (probe.grpc) return await askHealth(socket, port, probe.grpc.service ?? "", limited);
    return probe.httpGet ? await request(socket, port, probe.httpGet, limited) : undefined;
  } catch (error) {
    signal.throwIfAborted();
    return limited.aborted ? `no answer within ${timeoutMs / 1000}s` : messageOf(error);
  } finally {
    socket?.destroy();
  }
}
