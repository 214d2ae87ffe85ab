/** Sandboxes: made, listed, prolonged, ended. */
import { z } from "zod";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { CreateRequest, VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { isVmId } from "../../../util/names.ts";
import { sees } from "../../access/gate.ts";
import type { Caller, Gate } from "../../access/gate.ts";
import { remoteCreateRequest } from "../../native/bodies.ts";
import type { GatewayDriver } from "../../native/bodies.ts";
import { PUBLIC_LABEL } from "../../ports/access.ts";
import { E2bError } from "../errors.ts";
import {
  SANDBOX_LABELS,
  isSandbox,
  metadataLabels,
  metadataOf,
  sandboxDetail,
  sandboxReply,
  stateOf,
} from "../sandbox.ts";
import { networkPolicy, networkSchema } from "./network.ts";
import { builtinTemplate } from "./templates.ts";

/** Most seconds that a sandbox may be asked to live. */
const MAX_TIMEOUT_S = 24 * 3600;
const DEFAULT_TIMEOUT_S = 300;

const text = z.string().max(1024);
const timeout = z.int().min(0).max(MAX_TIMEOUT_S);
const createSchema = z.object({
  templateID: text.min(1).optional(),
  timeout: timeout.optional(),
  metadata: z.record(z.string().max(200), z.string().max(4096)).nullish(),
  envVars: z.record(z.string().max(4096), z.string().max(131_072)).nullish(),
  secure: z.boolean().nullish(),
  allow_internet_access: z.boolean().nullish(),
  network: networkSchema.nullish(),
  autoPause: z.boolean().nullish(),
  autoPauseMemory: z.boolean().nullish(),
  autoResume: z.object({ enabled: z.boolean() }).nullish(),
  volumeMounts: z.array(z.unknown()).nullish(),
  mcp: z.record(z.string(), z.unknown()).nullish(),
});
const timeoutSchema = z.object({ timeout });
const connectSchema = z.object({ timeout: timeout.optional(), memory: z.boolean().optional() });

/** What the control plane works with. */
export interface ControlContext {
  vmsan: Vmsan;
  gate: Gate;
  driver: GatewayDriver;
  /** The domain of sandboxes' hosts, or null for the client's own. */
  domain: string | null;
}

/** Sandboxes of one gateway. */
export class SandboxControl {
  private readonly context: ControlContext;

  constructor(context: ControlContext) {
    this.context = context;
  }

  /** A sandbox of the caller's. @throws not_found */
  async find(caller: Caller, id: string): Promise<Vm> {
    const missing = new E2bError("not_found", `Sandbox "${id.slice(0, 80)}" not found`);
    if (!isVmId(id)) throw missing;
    try {
      const vm = await this.context.vmsan.get(id);
      if (sees(caller, vm.view) && stateOf(vm.view) !== undefined) return vm;
    } catch (error) {
      if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") throw error;
    }
    throw missing;
  }

  /** Make one. @param defaultTimeoutS seconds it lives when the caller says nothing */
  async create(
    caller: Caller,
    body: unknown,
    defaultTimeoutS = DEFAULT_TIMEOUT_S,
  ): Promise<object> {
    const { vmsan, gate, driver, domain } = this.context;
    const wish = validate(createSchema, body, "sandbox");
    const name = wish.templateID ?? "base";
    const template = builtinTemplate(name);
    if ((wish.volumeMounts ?? []).length > 0) {
      throw new E2bError("unimplemented", "volumes are not offered", 400);
    }
    const internet = wish.allow_internet_access ?? true;
    const network = wish.network ?? {};
    const { id, runtime, image, vcpus = 1, memMib = 512, env = [] } = template;
    const request: CreateRequest = remoteCreateRequest(
      caller,
      {
        ...(runtime === undefined ? {} : { runtime }),
        ...(image === undefined ? {} : { image }),
        vcpus,
        memMib,
        env: [
          ...env,
          ...Object.entries(wish.envVars ?? {}).map(([key, value]) => `${key}=${value}`),
        ],
        timeoutMs: Math.max(1, (wish.timeout ?? defaultTimeoutS) * 1000),
        policy: networkPolicy(internet, network),
      },
      driver,
    );
    Object.assign(request.labels, metadataLabels(wish.metadata ?? {}), {
      [SANDBOX_LABELS.template]: id,
      [SANDBOX_LABELS.alias]: name,
      [SANDBOX_LABELS.onTimeout]: wish.autoPause === true ? "pause" : "kill",
      ...(wish.secure === false ? { [SANDBOX_LABELS.secure]: "false" } : {}),
      ...(wish.autoResume?.enabled === true ? { [SANDBOX_LABELS.autoResume]: "true" } : {}),
      ...(internet ? {} : { [SANDBOX_LABELS.internet]: "false" }),
      ...(wish.network === undefined || wish.network === null
        ? {}
        : { [SANDBOX_LABELS.network]: JSON.stringify(wish.network) }),
      ...(network.allowPublicTraffic === false ? {} : { [PUBLIC_LABEL]: "true" }),
    });
    const giveBack = gate.quotas.reserve(caller.key, [request], await vmsan.list());
    try {
      const vm = await vmsan.createFrom(request);
      return sandboxReply(vm.view, gate.tokens, domain);
    } finally {
      giveBack();
    }
  }

  /** One, in full. */
  async get(caller: Caller, id: string): Promise<object> {
    const { gate, domain } = this.context;
    return sandboxDetail((await this.find(caller, id)).view, gate.tokens, domain);
  }

  /** End one. @throws not_found */
  async kill(caller: Caller, id: string): Promise<void> {
    const vm = await this.find(caller, id);
    await vm.remove();
  }

  /**
   * Those that match, newest first.
   * @param query `metadata`, `state`, `limit`, `nextToken`, `order`, `startedAfter`, `template`
   */
  async list(
    caller: Caller,
    query: URLSearchParams,
  ): Promise<{ sandboxes: object[]; nextToken?: string }> {
    const { vmsan, gate, domain } = this.context;
    const limit = Math.min(Math.max(1, Number(query.get("limit") ?? 100) || 100), 1000);
    const states = new Set((query.get("state") ?? "running,paused").split(","));
    const wanted = [...new URLSearchParams(decodedTwice(query.get("metadata") ?? ""))];
    const after = Date.parse(query.get("startedAfter") ?? "");
    const template = query.get("template");
    const started = (view: VmView): number => Date.parse(view.startedAt ?? view.createdAt);
    const sign = query.get("order") === "asc" ? 1 : -1;
    const key = (view: VmView): string => `${String(started(view)).padStart(15, "0")}.${view.id}`;
    const from = query.get("nextToken");
    const all = (await vmsan.list())
      .filter((view) => {
        const state = stateOf(view);
        if (state === undefined || !states.has(state) || !isSandbox(view)) return false;
        if (!sees(caller, view) || (!Number.isNaN(after) && started(view) < after)) return false;
        const { labels } = view;
        const names = [labels[SANDBOX_LABELS.template], labels[SANDBOX_LABELS.alias]];
        if (template !== null && !names.includes(template)) return false;
        const metadata = metadataOf(view);
        return wanted.every(([name, value]) => metadata[name] === value);
      })
      .toSorted((a, b) => sign * (key(a) < key(b) ? -1 : 1))
      .filter(
        (view) => from === null || sign * (key(view) < from ? -1 : 1) > 0 || key(view) === from,
      );
    const page = all.slice(0, limit);
    const next = all[limit];
    return {
      sandboxes: page.map((view) => sandboxDetail(view, gate.tokens, domain)),
      ...(next === undefined ? {} : { nextToken: key(next) }),
    };
  }

  /** Let it live for so long from now on. */
  async setTimeout(caller: Caller, id: string, body: unknown): Promise<void> {
    const { timeout: seconds } = validate(timeoutSchema, body, "timeout");
    const vm = await this.find(caller, id);
    await vm.extendTimeout(Math.max(1, seconds * 1000));
  }

  /** Reach one again; a paused one goes on. @returns whether it was paused, and what create answers */
  async connect(
    caller: Caller,
    id: string,
    body: unknown,
  ): Promise<{ resumed: boolean; reply: object }> {
    const { gate, domain } = this.context;
    const { timeout: seconds = DEFAULT_TIMEOUT_S } = validate(connectSchema, body, "connection");
    const vm = await this.find(caller, id);
    const resumed = vm.view.status === "paused";
    if (resumed) await vm.resume();
    const left = Date.parse(vm.view.timeoutAt ?? "") - Date.now();
    // It extends, and never shortens.
    if (resumed || !(left > seconds * 1000)) await vm.extendTimeout(seconds * 1000);
    return { resumed, reply: sandboxReply(await vm.refresh(), gate.tokens, domain) };
  }

  /** Halt one. @throws already_exists when it is paused */
  async pause(caller: Caller, id: string): Promise<void> {
    const vm = await this.find(caller, id);
    if (vm.view.status === "paused")
      throw new E2bError("already_exists", `Sandbox "${id}" is paused already`);
    await vm.pause();
  }
}

/** A query string that clients encode once more; its keys and values are encoded within. */
function decodedTwice(textOnce: string): string {
  try {
    return decodeURIComponent(textOnce).includes("%") ? decodeURIComponent(textOnce) : textOnce;
  } catch {
    // Not encoded again: taken as it is.
    return textOnce;
  }
}
