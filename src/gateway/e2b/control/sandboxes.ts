/** Sandboxes: made, listed, prolonged, ended. */
import * as z from "zod";
import type { Vm } from "../../../client/vm.ts";
import type { VmView } from "../../../model/api.ts";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import type { VolumeMount } from "../../../model/mount.ts";
import { isVmId } from "../../../util/names.ts";
import { sees } from "../../access/gate.ts";
import { occupied, scopeOf } from "../../access/limits.ts";
import type { Caller } from "../../access/gate.ts";
import { remoteCreateRequest } from "../../native/bodies.ts";
import { PUBLIC_LABEL, namedVm } from "../../ports/access.ts";
import { E2bError } from "../errors.ts";
import {
  SANDBOX_LABELS,
  isSandbox,
  metadataLabels,
  metadataOf,
  sandboxDetail,
  sandboxReply,
  stateOf,
  endOf,
} from "../sandbox.ts";
import type { SandboxReader } from "../sandbox.ts";
import { openRoot, settleVolumes } from "../volumes/places.ts";
import { mountsSchema, volumeMounts } from "../volumes/volumes.ts";
import { networkPolicy, networkSchema, updateSchema } from "./network.ts";
import { Builds } from "./builds.ts";
import type { ControlContext } from "./context.ts";
import { startInterpreter } from "./interpreter.ts";
import { checkPauses, pauseSandbox, prolong, resumeSandbox, vmLimit } from "./lifecycle.ts";
import { page } from "./pages.ts";
import { sample } from "./metrics.ts";
import { resolveTemplate } from "./templates.ts";
import type { Template } from "./templates.ts";

/** Most seconds that a sandbox may be asked to live. */
const MAX_TIMEOUT_S = 24 * 3600;
const DEFAULT_TIMEOUT_S = 300;
/** Most sandboxes whose use is asked for at once. */
const MAX_SAMPLED = 100;

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
  volumeMounts: mountsSchema.nullish(),
  mcp: z.record(z.string(), z.unknown()).nullish(),
  iam: z.unknown().optional(),
});
const timeoutSchema = z.object({ timeout });
const connectSchema = z.object({ timeout: timeout.optional(), memory: z.boolean().optional() });
const pauseSchema = z.object({ memory: z.boolean().nullish() });
const refreshSchema = z.object({ duration: timeout.optional() });

/** What a sandbox's VM is to be besides its template. */
interface VmWish {
  mounts: readonly VolumeMount[];
  env: string[];
  timeoutMs: number;
  policy: object;
  labels: Record<string, string>;
}

/** Sandboxes of one gateway. */
export class SandboxControl {
  readonly context: ControlContext;
  /** Builds of templates that sandboxes are made of. */
  readonly builds: Builds;

  constructor(context: ControlContext) {
    this.context = context;
    this.builds = new Builds(context);
  }

  /** Whom a caller's sandboxes are described to. */
  reader({ key }: Caller): SandboxReader {
    const { gate, domain } = this.context;
    return { tokens: gate.tokens, key, domain };
  }

  /** A sandbox of the caller's. @throws not_found */
  async find(caller: Caller, named: string): Promise<Vm> {
    const id = namedVm(named);
    const missing = new E2bError("not_found", `Sandbox "${named.slice(0, 80)}" not found`);
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
    const { store, users } = this.context;
    const wish = validate(createSchema, body, "sandbox");
    if (wish.iam !== undefined && wish.iam !== null)
      throw new E2bError("unimplemented", "identity tokens (iam) are not offered", 400);
    const name = wish.templateID ?? "base";
    const template = await resolveTemplate(store, caller, name);
    const volumes = wish.volumeMounts ?? [];
    const mounts = await volumeMounts(this.context, caller, volumes);
    if (mounts.length > 0 && template.snapshot !== undefined) {
      // Its memory knows nothing of them, and a disk cannot be put in on every driver.
      const why =
        "a sandbox of a snapshot, or of a template with a start command, takes no volumes";
      throw new E2bError("unimplemented", why, 400);
    }
    if (wish.autoPause === true) checkPauses(this.context.vmsan);
    const internet = wish.allow_internet_access ?? true;
    const network = wish.network ?? {};
    const labels: Record<string, string> = {
      ...metadataLabels(wish.metadata ?? {}),
      [SANDBOX_LABELS.template]: template.id,
      [SANDBOX_LABELS.alias]: name,
      [SANDBOX_LABELS.onTimeout]: wish.autoPause === true ? "pause" : "kill",
      ...(wish.autoPauseMemory === false ? { [SANDBOX_LABELS.pauseMemory]: "false" } : {}),
      ...(wish.secure === false ? { [SANDBOX_LABELS.secure]: "false" } : {}),
      ...(wish.autoResume?.enabled === true ? { [SANDBOX_LABELS.autoResume]: "true" } : {}),
      ...(internet ? {} : { [SANDBOX_LABELS.internet]: "false" }),
      ...(wish.network === undefined || wish.network === null
        ? {}
        : { [SANDBOX_LABELS.network]: JSON.stringify(wish.network) }),
      ...(volumes.length === 0 ? {} : { [SANDBOX_LABELS.volumes]: JSON.stringify(volumes) }),
      ...(network.allowPublicTraffic === false ? {} : { [PUBLIC_LABEL]: "true" }),
    };
    const vm = await this.make(caller, template, {
      mounts,
      env: Object.entries(wish.envVars ?? {}).map(([key, value]) => `${key}=${value}`),
      timeoutMs: vmLimit(labels, (wish.timeout ?? defaultTimeoutS) * 1000),
      policy: networkPolicy(internet, network),
      labels,
    });
    users.warm(vm);
    return sandboxReply(vm.view, this.reader(caller));
  }

  /** Make the VM of a sandbox, within the limits of the caller's key. */
  private async make(caller: Caller, template: Template, wish: VmWish): Promise<Vm> {
    const { vmsan, gate, driver } = this.context;
    const { runtime, image, snapshot, vcpus = 1, memMib = 512, env = [] } = template;
    const { user, workdir } = template;
    // Through the same gate as other callers' VMs, whatever it is made of.
    const request = remoteCreateRequest(
      caller,
      {
        ...(runtime === undefined ? {} : { runtime }),
        ...(image === undefined ? {} : { image }),
        ...(user === undefined ? {} : { user }),
        ...(workdir === undefined ? {} : { workdir }),
        vcpus,
        memMib,
        env: [...env, ...wish.env],
        timeoutMs: wish.timeoutMs,
        policy: wish.policy,
      },
      driver,
    );
    Object.assign(request.labels, wish.labels);
    // Looked up among the caller's own: by themselves names of volumes are for admins.
    request.mounts = [...wish.mounts];
    const giveBack = gate.quotas.reserve(caller.key, [request], await occupied(vmsan, caller.key));
    try {
      if (snapshot === undefined) {
        const names = wish.mounts.map(({ name }) => name);
        return await this.context.places.without(names, async () => {
          return await this.started(await vmsan.createFrom(request), wish.mounts);
        });
      }
      const { policy, project, labels } = request;
      const [vm] = await vmsan.clone(snapshot, {
        project,
        labels,
        // A template may be another project's, whose networks are not this caller's.
        networks: [],
        ...(request.env.length > 0 ? { env: request.env } : {}),
        ...(user === undefined ? {} : { user }),
        ...(workdir === undefined ? {} : { workdir }),
        networkPolicy: policy.mode,
        allowedDomains: policy.allowedDomains,
        allowedCidrs: policy.allowedCidrs,
        deniedCidrs: policy.deniedCidrs,
        timeout: `${Math.ceil(wish.timeoutMs / 1000)}s`,
      });
      if (vm === undefined) throw new TypeError("A clone without a VM");
      return vm;
    } finally {
      giveBack();
    }
  }

  /**
   * A VM in which what its runtime is to serve runs, and everybody may write into new volumes; one in which that
   * fails is removed.
   */
  private async started(vm: Vm, mounts: readonly VolumeMount[]): Promise<Vm> {
    try {
      for (const { target } of mounts) await openRoot({ vm, root: target });
      await startInterpreter(vm);
      return vm;
    } catch (error) {
      await vm.remove();
      throw error;
    }
  }

  /** One, in full. */
  async get(caller: Caller, id: string): Promise<object> {
    return sandboxDetail((await this.find(caller, id)).view, this.reader(caller));
  }

  /** End one. @throws not_found */
  async kill(caller: Caller, id: string): Promise<void> {
    const vm = await this.find(caller, id);
    await settleVolumes(vm);
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
    const { vmsan } = this.context;
    const reader = this.reader(caller);
    const states = new Set((query.get("state") ?? "running,paused").split(","));
    const wanted = [...new URLSearchParams(decodedTwice(query.get("metadata") ?? ""))];
    const after = Date.parse(query.get("startedAfter") ?? "");
    const template = query.get("template");
    const started = (view: VmView): number => Date.parse(view.startedAt ?? view.createdAt);
    const sign = query.get("order") === "asc" ? 1 : -1;
    const key = (view: VmView): string => `${String(started(view)).padStart(15, "0")}.${view.id}`;
    const own = (await vmsan.list(scopeOf(caller.key))).filter((view) => {
      const state = stateOf(view);
      if (state === undefined || !states.has(state) || !isSandbox(view)) return false;
      if (!sees(caller, view) || (!Number.isNaN(after) && started(view) < after)) return false;
      const { labels } = view;
      const names = [labels[SANDBOX_LABELS.template], labels[SANDBOX_LABELS.alias]];
      if (template !== null && !names.includes(template)) return false;
      const metadata = metadataOf(view);
      return wanted.every(([name, value]) => metadata[name] === value);
    });
    const { items, nextToken } = page(own, query, key, sign);
    return {
      sandboxes: items.map((view) => sandboxDetail(view, reader)),
      ...(nextToken === undefined ? {} : { nextToken }),
    };
  }

  /** Let it live for so long from now on. */
  async setTimeout(caller: Caller, id: string, body: unknown): Promise<void> {
    const { timeout: seconds } = validate(timeoutSchema, body, "timeout");
    const vm = await this.find(caller, id);
    requireAwake(vm);
    await prolong(vm, seconds * 1000);
  }

  /** Reach one again; a paused one goes on. @returns whether it was paused, and what create answers */
  async connect(
    caller: Caller,
    id: string,
    body: unknown,
  ): Promise<{ resumed: boolean; reply: object }> {
    const { vmsan, places } = this.context;
    const wish = validate(connectSchema, body, "connection");
    const { timeout: seconds = DEFAULT_TIMEOUT_S, memory } = wish;
    const vm = await this.find(caller, id);
    const resumed = !(await this.extend(vm, seconds * 1000));
    if (resumed) {
      if (memory === false && vm.view.status === "suspended") await vm.stop();
      await resumeSandbox(await vmsan.get(id), seconds * 1000, places);
    }
    return { resumed, reply: sandboxReply(await vm.refresh(), this.reader(caller)) };
  }

  /**
   * Let a running sandbox live for at least so long.
   * @returns false when it is paused, also if it fell asleep in this moment
   */
  private async extend(vm: Vm, ms: number): Promise<boolean> {
    if (stateOf(vm.view) === "paused") return false;
    if (Date.parse(endOf(vm.view) ?? "") - Date.now() > ms) return true;
    try {
      await prolong(vm, ms);
      return stateOf(vm.view) !== "paused";
    } catch (error) {
      if (stateOf(await vm.refresh()) !== "paused") throw error;
      return false;
    }
  }

  /** Let it live a little longer. @param body `duration` in seconds */
  async prolong(caller: Caller, id: string, body: unknown): Promise<void> {
    const { duration = DEFAULT_TIMEOUT_S } = validate(refreshSchema, body, "duration");
    const vm = await this.find(caller, id);
    requireAwake(vm);
    if (!(Date.parse(endOf(vm.view) ?? "") - Date.now() > duration * 1000))
      await prolong(vm, duration * 1000);
  }

  /** Put one to sleep. @throws already_exists when it is paused */
  async pause(caller: Caller, id: string, body: unknown): Promise<void> {
    const { memory } = validate(pauseSchema, body, "pause");
    checkPauses(this.context.vmsan);
    await pauseSandbox(await this.find(caller, id), memory !== false);
  }

  /** Say anew what it may reach; what is left out is cleared. */
  async setNetwork(caller: Caller, id: string, body: unknown): Promise<void> {
    const wish = validate(updateSchema, body, "network");
    const vm = await this.find(caller, id);
    const request = remoteCreateRequest(caller, {
      policy: networkPolicy(wish.allow_internet_access ?? true, wish),
    });
    await vm.setPolicy(request.policy);
  }

  /** Samples of what it uses: the one of now, if that is asked for. @param query `start`, `end` in seconds */
  async metrics(caller: Caller, id: string, query: URLSearchParams): Promise<object[]> {
    const vm = await this.find(caller, id);
    const now = Date.now() / 1000;
    const start = Number(query.get("start") ?? 0);
    const end = Number(query.get("end") ?? now + 60);
    if (stateOf(vm.view) !== "running" || start > now || end < now - 5) return [];
    return [await sample(this.context.vmsan, vm)];
  }

  /** A sample of each of several sandboxes that run. @param query `sandbox_ids`, joined by commas */
  async metricsOfAll(caller: Caller, query: URLSearchParams): Promise<object> {
    const ids = [...new Set((query.get("sandbox_ids") ?? "").split(",").filter(Boolean))];
    if (ids.length > MAX_SAMPLED)
      throw new E2bError("invalid_argument", `sandbox_ids has at most ${MAX_SAMPLED}`);
    const samples = await Promise.all(
      ids.map(async (id) => {
        const [one] = await this.metrics(caller, id, new URLSearchParams());
        return one === undefined ? [] : [[id, one] as const];
      }),
    );
    return { sandboxes: Object.fromEntries(samples.flat()) };
  }
}

/** @throws failed_precondition for a sandbox that is paused */
function requireAwake({ id, view }: Vm): void {
  if (stateOf(view) === "paused")
    throw new E2bError("failed_precondition", `Sandbox "${id}" is paused`, 409);
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
