/**
 * Firecracker's API, typed: HTTP/1.1 over a unix socket, 204 or 200 on success, 400 with a
 * `fault_message` otherwise. Written from the vendor's OpenAPI description, releases 1.10 to 1.16.
 */
import type { ClientRequest, IncomingMessage } from "node:http";
import { VmsanError, messageOf } from "../../model/errors.ts";
import { httpModule } from "../../util/process/http-modules.ts";
import { connectUnix } from "../../util/socket-path.ts";
import { causeOf } from "./causes.ts";

/** Tokens (bytes or operations) that refill over time. */
export interface TokenBucket {
  size: number;
  /** Milliseconds until an empty bucket is full. */
  refill_time: number;
  one_time_burst?: number;
}

/** Limits of a device. */
export interface RateLimiter {
  bandwidth?: TokenBucket;
  ops?: TokenBucket;
}

/** PUT /machine-config. */
export interface MachineConfig {
  /** 1 to 32. */
  vcpu_count: number;
  mem_size_mib: number;
  smt?: boolean;
  track_dirty_pages?: boolean;
  huge_pages?: "None" | "2M";
}

/** PUT /boot-source. */
export interface BootSource {
  kernel_image_path: string;
  boot_args?: string;
  initrd_path?: string;
}

/** PUT /drives/ID. */
export interface Drive {
  drive_id: string;
  is_root_device: boolean;
  path_on_host: string;
  is_read_only: boolean;
  cache_type?: "Unsafe" | "Writeback";
  io_engine?: "Sync" | "Async";
  rate_limiter?: RateLimiter;
}

/** PUT /network-interfaces/ID. */
export interface NetworkInterface {
  iface_id: string;
  host_dev_name: string;
  guest_mac?: string;
  rx_rate_limiter?: RateLimiter;
  tx_rate_limiter?: RateLimiter;
}

/** PUT /vsock. */
export interface Vsock {
  /** 3 or more. */
  guest_cid: number;
  uds_path: string;
}

/** PUT /balloon. */
export interface Balloon {
  amount_mib: number;
  deflate_on_oom: boolean;
  /** Seconds; 0 switches statistics off for good. */
  stats_polling_interval_s?: number;
}

/** GET /balloon/statistics, what is used of it. */
export interface BalloonStats {
  target_mib: number;
  actual_mib: number;
  free_memory?: number;
  total_memory?: number;
  available_memory?: number;
}

/** PUT /snapshot/create. */
export interface SnapshotCreate {
  snapshot_path: string;
  mem_file_path: string;
  snapshot_type?: "Full" | "Diff";
}

/** PUT /snapshot/load. */
export interface SnapshotLoad {
  snapshot_path: string;
  mem_backend: { backend_type: "File" | "Uffd"; backend_path: string };
  resume_vm?: boolean;
  network_overrides?: { iface_id: string; host_dev_name: string }[];
}

/** GET /. */
export interface InstanceInfo {
  id: string;
  state: "Not started" | "Running" | "Paused";
  vmm_version: string;
  app_name: string;
}

/** One call of the API: what is sent, and for how long an answer is waited for. */
export interface ApiCall {
  method: "GET" | "PUT" | "PATCH";
  path: string;
  body?: object;
  /** Milliseconds; default 10 000. */
  timeoutMs?: number;
}

/** Most bytes of an answer; the longest known (GET /vm/config) has some kilobytes. */
const maxAnswer = 1 << 20;
const defaultTimeoutMs = 10_000;

/** An ERR_VMM_API… error that names the call. */
function apiError(call: ApiCall, why: string, details: object = {}, cause?: unknown): VmsanError {
  const timedOut = "timeout" in details;
  const likely = causeOf(call.path, why);
  return new VmsanError(
    {
      code: timedOut ? "ERR_VMM_API_TIMEOUT" : "ERR_VMM_API",
      message: `Firecracker did not do ${call.method} ${call.path}`,
      why: likely === undefined ? why : `${likely.why} It said: ${why}`,
      fix:
        likely?.fix ?? "Run `vmsan doctor`; if it finds nothing, report this with the text above.",
      details: { call: `${call.method} ${call.path}`, ...details },
    },
    cause,
  );
}

/** The reason in an error's body; bodies over the size limit are answered with broken JSON. */
export function faultMessage(body: string): string {
  try {
    const value: unknown = JSON.parse(body);
    if (typeof value === "object" && value !== null && "fault_message" in value) {
      return String(value.fault_message);
    }
  } catch {
    // SyntaxError: the text itself is all there is.
  }
  const inside = /"fault_message"\s*:\s*"([\s\S]*?)"\s*}?\s*$/.exec(body)?.[1];
  return (inside ?? body).trim().slice(0, 2000) || "no reason given";
}

/** A client of one Firecracker process. */
export class FirecrackerApi {
  private readonly socketPath: string;

  /** @param socketPath absolute path of any length */
  constructor(socketPath: string) {
    this.socketPath = socketPath;
  }

  /**
   * Make a call.
   * Throws ERR_VMM_API with the fault message, ERR_VMM_API_TIMEOUT, or the signal's reason.
   * @returns the parsed answer, undefined for 204
   */
  async call(call: ApiCall, signal?: AbortSignal): Promise<unknown> {
    const timeoutMs = call.timeoutMs ?? defaultTimeoutMs;
    const limit = AbortSignal.timeout(timeoutMs);
    const any = signal === undefined ? limit : AbortSignal.any([signal, limit]);
    let answer: { status: number; body: string };
    try {
      answer = await this.exchange(call, any);
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      if (limit.aborted) {
        throw apiError(call, `There was no answer within ${timeoutMs} ms.`, { timeout: timeoutMs });
      }
      throw apiError(call, messageOf(error), {}, error);
    }
    const { status, body } = answer;
    if (status === 204) return undefined;
    if (status !== 200)
      throw apiError(call, faultMessage(body), { status, body: body.slice(0, 2000) });
    try {
      return JSON.parse(body) as unknown;
    } catch (error) {
      throw apiError(call, "The answer is not JSON.", { status, body: body.slice(0, 2000) }, error);
    }
  }

  /** Send a request on a connection of its own and read the whole answer. */
  private async exchange(
    call: ApiCall,
    signal: AbortSignal,
  ): Promise<{ status: number; body: string }> {
    const http = httpModule();
    const socket = await connectUnix(this.socketPath, signal);
    try {
      return await new Promise((resolve, reject) => {
        const body = call.body === undefined ? undefined : JSON.stringify(call.body);
        const request: ClientRequest = http.request({
          createConnection: () => socket,
          method: call.method,
          path: call.path,
          headers: {
            Host: "localhost",
            Accept: "application/json",
            ...(body === undefined
              ? {}
              : { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) }),
          },
        });
        const abort = (): void => {
          request.destroy();
          reject(signal.reason as Error);
        };
        signal.addEventListener("abort", abort, { once: true });
        request.on("error", reject);
        request.on("close", () => signal.removeEventListener("abort", abort));
        request.on("response", (response: IncomingMessage) => {
          let text = "";
          response.setEncoding("utf8");
          response.on("data", (part: string) => {
            text += part;
            if (text.length > maxAnswer) request.destroy(new Error("the answer is too long"));
          });
          response.on("error", reject);
          response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
        });
        request.end(body);
      });
    } finally {
      socket.destroy();
    }
  }

  /** GET /. */
  async instance(signal?: AbortSignal, timeoutMs?: number): Promise<InstanceInfo> {
    const call: ApiCall = { method: "GET", path: "/", ...(timeoutMs ? { timeoutMs } : {}) };
    const value = await this.call(call, signal);
    if (typeof value === "object" && value !== null && "state" in value && "vmm_version" in value) {
      return value as InstanceInfo;
    }
    throw apiError(call, "The answer has no state.");
  }

  /** GET /balloon/statistics; throws ERR_VMM_API when the guest's driver is not up yet. */
  async balloonStatistics(): Promise<BalloonStats> {
    const call: ApiCall = { method: "GET", path: "/balloon/statistics" };
    const value = await this.call(call);
    if (typeof value === "object" && value !== null && "actual_mib" in value) {
      return value as BalloonStats;
    }
    throw apiError(call, "The answer has no statistics.");
  }

  /** PATCH /balloon: how much memory the guest is asked to give back. */
  async setBalloon(amountMib: number): Promise<void> {
    await this.call({ method: "PATCH", path: "/balloon", body: { amount_mib: amountMib } });
  }

  /** PATCH /vm. */
  async setState(state: "Paused" | "Resumed"): Promise<void> {
    await this.call({ method: "PATCH", path: "/vm", body: { state }, timeoutMs: 30_000 });
  }

  /** PUT /snapshot/create; the VM must be paused. */
  async createSnapshot(body: SnapshotCreate): Promise<void> {
    await this.call({ method: "PUT", path: "/snapshot/create", body, timeoutMs: 120_000 });
  }
}
