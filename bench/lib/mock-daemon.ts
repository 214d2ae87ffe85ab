/**
 * A daemon that has no VMs: it answers as if it had, so that what its clients cost can be measured alone.
 * Commands run for ever and print nothing.
 */
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import {
  FrameDecoder,
  FrameType,
  decodeJson,
  encodeFrame,
  encodeJson,
} from "../../src/agent/frames.ts";
import type { CreateRequest, VmView } from "../../src/model/api.ts";
import { packageVersion } from "../../src/util/package.ts";
import { layoutOf } from "../../src/util/paths.ts";

/** A VM of a request, as a daemon would show it. */
function viewOf(id: string, request: CreateRequest): VmView {
  const name = request.image ?? "none";
  const now = new Date().toISOString();
  return {
    id,
    status: "running",
    createdAt: now,
    startedAt: now,
    image: {
      name,
      digest: `sha256:${"0".repeat(64)}`,
      config: { env: [], entrypoint: [], cmd: [] },
    },
    project: request.project,
    labels: request.labels,
    driver: "fake",
    accelerator: "none",
    driverReason: "",
    vcpus: request.vcpus,
    memMib: request.memMib,
    diskSizeBytes: request.diskSizeBytes,
    kernel: "",
    rootfs: "",
    mounts: [],
    kernelArgs: [],
    sysctls: {},
    defaults: { env: request.env },
    policy: request.policy,
    ports: [],
    networks: [],
    timings: {},
    ephemeral: false,
  } as unknown as VmView;
}

/** Serves a VMSAN_DIR. */
export class MockDaemon {
  readonly vms = new Map<string, VmView>();
  /** Clients that have attached to a command so far. */
  attached = 0;
  private readonly dir: string;
  private readonly server: Server;
  private readonly open = new Set<Duplex>();

  constructor(dir: string) {
    this.dir = dir;
    this.server = createServer((request, response) => void this.answer(request, response));
    this.server.on("upgrade", (_request, socket) => this.stream(socket));
  }

  /** Listen on the directory's socket. */
  async start(): Promise<void> {
    const { socket } = layoutOf(this.dir);
    mkdirSync(dirname(socket), { recursive: true });
    await new Promise<void>((resolve) => this.server.listen(socket, resolve));
  }

  /** End all connections. */
  close(): void {
    for (const socket of this.open) socket.destroy();
    this.server.close();
    this.server.closeAllConnections();
  }

  private async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part as Buffer);
    const { method = "", url = "" } = request;
    const [, , , id = "", rest = ""] = url.replace(/\?.*/, "").split("/");
    const reply = (status: number, value: unknown): void => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(value));
    };
    if (url === "/v1/version") {
      reply(200, { version: packageVersion(), pid: process.pid, root: this.dir, protocol: 1 });
    } else if (url === "/v1/images") reply(200, { images: [] });
    else if (url === "/v1/images/pull") {
      response.end(`${JSON.stringify({ event: "result", result: {} })}\n`);
    } else if (method === "POST" && url === "/v1/vms") {
      const made = `vm-${randomBytes(4).toString("hex")}`;
      const body = JSON.parse(Buffer.concat(parts).toString("utf8")) as CreateRequest;
      const view = viewOf(made, body);
      this.vms.set(made, view);
      response.write(`${JSON.stringify({ event: "vm", id: made })}\n`);
      response.end(`${JSON.stringify({ event: "result", result: view })}\n`);
    } else if (url === "/v1/vms") reply(200, { vms: [...this.vms.values()], damaged: [] });
    else if (!this.vms.has(id)) reply(404, { error: { code: "ERR_VM_NOT_FOUND", message: id } });
    else if (method === "DELETE" && rest === "") {
      this.vms.delete(id);
      reply(200, {});
    } else reply(200, this.vms.get(id));
  }

  /** A stream of a command that only ends when it is killed. */
  private stream(socket: Duplex): void {
    this.open.add(socket);
    socket.on("close", () => this.open.delete(socket));
    socket.on("error", () => socket.destroy());
    socket.write(
      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: vmsan-stream\r\nConnection: Upgrade\r\n\r\n",
    );
    const decoder = new FrameDecoder({
      frame: (type, payload) => {
        if (type === FrameType.START || type === FrameType.ATTACH) {
          decodeJson(type, payload);
          if (type === FrameType.ATTACH) this.attached += 1;
          const at = { pid: 1, stdout: "0", stderr: "0", stdin: "0" };
          socket.write(encodeJson(FrameType.ATTACHED, at));
        } else if (type === FrameType.SIGNAL) {
          const exit = { exitCode: 143, signal: "SIGTERM", durationMs: 1 };
          socket.write(encodeJson(FrameType.EXIT, exit));
        } else if (type === FrameType.DETACH)
          socket.end(encodeFrame(FrameType.DETACH, Buffer.alloc(0)));
      },
      data: () => undefined,
    });
    socket.on("data", (bytes: Buffer) => decoder.push(bytes));
  }
}
