/** The data plane of all sandboxes: which one a request is for, whether it may, and which service answers. */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import { isVmId } from "../../../util/names.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { sees } from "../../access/gate.ts";
import type { Gate } from "../../access/gate.ts";
import { askerOf } from "../../http/asker.ts";
import type { Hosts } from "../../http/hosts.ts";
import { guestPortOf } from "../../ports/access.ts";
import { E2bError } from "../errors.ts";
import type { ControlContext } from "../control/context.ts";
import type { Waker } from "../control/lifecycle.ts";
import { SANDBOX_LABELS, isSecure, stateOf, wakesOnUse } from "../sandbox.ts";
import { sendError } from "./connect.ts";
import { DeadSandbox } from "./dead-sandbox.ts";
import { filesRoute } from "./files.ts";
import { filesystemMethods, filesystemService } from "./filesystem.ts";
import { LiveProcesses } from "./live.ts";
import { processMethods, processService } from "./process.ts";
import { ProvenSandboxes } from "./proven.ts";
import { checkExpiration, isSigned, signedWith } from "./signature.ts";
import type { GuestUsers } from "./users.ts";
import { Watchers } from "./watchers.ts";

/** The port that envd has in a sandbox of E2B's. */
export const ENVD_PORT = 49_983;

const SERVICE = /^\/(process\.Process|filesystem\.Filesystem)\/([A-Za-z]{1,40})$/;
const OWN =
  /^\/(?:(?:files|health|envs|metrics)(?:\?|$)|process\.Process\/|filesystem\.Filesystem\/)/;

/** All that is answered for a sandbox, by methods and paths. */
export const envdRoutes: readonly string[] = [
  "GET /files",
  "HEAD /files",
  "POST /files",
  "GET /health",
  ...processMethods.map((method) => `POST /process.Process/${method}`),
  ...filesystemMethods.map((method) => `POST /filesystem.Filesystem/${method}`),
];

/** The path and query of a request. */
export function urlOf(request: IncomingMessage): URL {
  return new URL(request.url ?? "/", "http://gateway");
}

/** The user that a request speaks for. */
function userOf(request: IncomingMessage, query: URLSearchParams): string {
  const basic = /^basic +([A-Za-z0-9+/=]+)$/i.exec(request.headers.authorization ?? "")?.[1];
  const [name = ""] = Buffer.from(basic ?? "", "base64")
    .toString("utf8")
    .split(":");
  return name || query.get("username") || "";
}

/** The data plane. */
export class DataPlane {
  private readonly vmsan: Vmsan;
  private readonly gate: Gate;
  private readonly hosts: Hosts;
  private readonly users: GuestUsers;
  private readonly processes = new LiveProcesses();
  private readonly watchers = new Watchers();
  private readonly waker: Waker;
  private readonly behindProxy: boolean;
  private readonly proven: ProvenSandboxes;

  constructor(
    context: Pick<ControlContext, "vmsan" | "gate" | "users" | "behindProxy">,
    hosts: Hosts,
    waker: Waker,
  ) {
    const { vmsan, gate, users } = context;
    this.waker = waker;
    this.behindProxy = context.behindProxy;
    this.vmsan = vmsan;
    this.gate = gate;
    this.users = users;
    this.hosts = hosts;
    this.proven = new ProvenSandboxes(vmsan, gate.tokens);
  }

  /** Whether a request is for a sandbox's envd. */
  claims(request: IncomingMessage): boolean {
    const target = guestPortOf(request, this.hosts);
    if (target !== undefined) return target.port === ENVD_PORT;
    return OWN.test(request.url ?? "");
  }

  /** Answer a request. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = urlOf(request);
    try {
      const vm = await this.sandbox(request, searchParams);
      if (pathname === "/health") {
        // Whoever only looks wakes nobody.
        if (stateOf(vm.view) !== "running") throw new DeadSandbox(vm.id);
        response.writeHead(204).end();
        return;
      }
      const ready = await this.waker.ready(vm);
      if (ready === undefined) throw new DeadSandbox(vm.id);
      await this.serve(request, response, pathname, searchParams, ready);
    } catch (error) {
      if (error instanceof DeadSandbox) error.send(response);
      else sendError(response, error, !SERVICE.test(pathname));
    }
  }

  private async serve(
    request: IncomingMessage,
    response: ServerResponse,
    pathname: string,
    query: URLSearchParams,
    vm: Vm,
  ): Promise<void> {
    const name = userOf(request, query) || defaultUser(vm.view);
    const user = await this.users.user(vm, name);
    const { users, processes, watchers } = this;
    if (pathname === "/files") {
      await filesRoute(request, response, query, { vm, user, users });
      return;
    }
    const [, service, method = ""] = SERVICE.exec(pathname) ?? [];
    if (service === "process.Process") {
      const env = [
        "E2B_SANDBOX=true",
        `E2B_SANDBOX_ID=${vm.id}`,
        `E2B_TEMPLATE_ID=${vm.view.labels[SANDBOX_LABELS.template]}`,
      ];
      await processService(request, response, method, { vm, user, env, processes });
    } else if (service === "filesystem.Filesystem") {
      await filesystemService(request, response, method, { vm, user, users, watchers });
    } else throw new E2bError("not_found", `no route ${pathname.slice(0, 200)}`);
  }

  /** The running sandbox that a request may use. @throws DeadSandbox, unauthenticated */
  private async sandbox(request: IncomingMessage, query: URLSearchParams): Promise<Vm> {
    const target = guestPortOf(request, this.hosts);
    if (target === undefined) return await this.provenFor(request, query);
    const vm = await this.alive(target.vm);
    const { view } = vm;
    const bearer = await this.bearerOf(request, view);
    if (bearer !== undefined && sees(this.gate.pass(request, bearer), view)) return vm;
    if (!isSecure(view) || urlOf(request).pathname === "/health") return vm;
    if (isSigned(query)) {
      const signer = await this.signerOf(request, query, view);
      if (signer === undefined) throw new E2bError("unauthenticated", "invalid signature");
      checkExpiration(query);
      this.gate.pass(request, signer);
      return vm;
    }
    throw new E2bError("unauthenticated", "the access token is missing or wrong");
  }

  /**
   * The sandbox that a request without any name is for: the one whose token made the signature of its URL,
   * or is with it (some of E2B's Python SDKs name no sandbox after `connect`: 2.10, 2.20).
   */
  private async provenFor(request: IncomingMessage, query: URLSearchParams): Promise<Vm> {
    const signed = urlOf(request).pathname === "/files" && isSigned(query);
    if (!signed && request.headers["x-access-token"] === undefined) {
      throw new E2bError("unauthenticated", "the request names no sandbox");
    }
    const found = signed
      ? await this.proven.ofProof(proofOf(request, query), askerOf(request, this.behindProxy))
      : await this.proven.ofToken(String(request.headers["x-access-token"]));
    if (found === undefined) {
      const why = signed ? "invalid signature" : "the request names no sandbox";
      throw new E2bError("unauthenticated", why);
    }
    if (signed) checkExpiration(query);
    this.gate.pass(request, found.key);
    return await this.alive(found.id);
  }

  /** The key whose token for a sandbox is with a request. */
  private async bearerOf(
    { headers }: IncomingMessage,
    { id }: VmView,
  ): Promise<GatewayKey | undefined> {
    const token = headers["x-access-token"];
    if (typeof token !== "string") return undefined;
    return await this.gate.tokens.bearer(token, "data", id);
  }

  /** The key whose token for a sandbox a request is signed with. */
  private async signerOf(
    request: IncomingMessage,
    query: URLSearchParams,
    view: VmView,
  ): Promise<GatewayKey | undefined> {
    const isMeant = proofOf(request, query);
    if (isMeant === undefined) return undefined;
    const may = (key: GatewayKey): boolean => sees({ key }, view);
    return (await this.gate.tokens.whose("data", [view], may, isMeant))?.key;
  }

  /** A sandbox that is not at its end. @throws DeadSandbox */
  private async alive(id: string): Promise<Vm> {
    if (!isVmId(id)) throw new DeadSandbox(id);
    try {
      const vm = await this.vmsan.get(id);
      const state = stateOf(vm.view);
      if (state === "running" || (state === "paused" && wakesOnUse(vm.view))) return vm;
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") throw error;
    }
    throw new DeadSandbox(id);
  }
}

/** What tells whether a request is signed with a token. */
function proofOf(
  { method }: IncomingMessage,
  query: URLSearchParams,
): ReturnType<typeof signedWith> {
  return signedWith(query, method === "GET" ? "read" : "write");
}

/** The user of a sandbox whose clients name none. */
function defaultUser(view: VmView): string {
  const name = view.defaults.user ?? view.image?.config.user ?? "";
  return name.split(":", 1)[0] || "root";
}
