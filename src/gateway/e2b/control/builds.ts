/** Builds of templates: steps run in a VM, whose snapshot sandboxes are then made of. */
import * as z from "zod";
import type { Vm } from "../../../client/vm.ts";
import type { VmsanError } from "../../../model/errors.ts";
import { asVmsanError } from "../../../model/errors.ts";
import type { Caller } from "../../access/gate.ts";
import { occupied } from "../../access/limits.ts";
import { remoteCreateRequest } from "../../native/bodies.ts";
import { E2bError } from "../errors.ts";
import type { ControlContext } from "./context.ts";
import { takeTags } from "./store.ts";
import type { KnownTemplate, TemplateBuild } from "./store.ts";
import { startInterpreter } from "./interpreter.ts";
import { StepError, doStep, setScene, startUp } from "./steps.ts";
import type { Scene, Stage } from "./steps.ts";
import { BASE, resolveTemplate } from "./templates.ts";
import type { Template } from "./templates.ts";

/** Most lines, and characters of them, that are kept of a build, and most lines in one reply. */
const MAX_LINES = 20_000;
const MAX_CHARACTERS = 2 << 20;
const PAGE = 100;
/** Most builds of this process whose lines are kept. */
const MAX_KEPT = 200;
/** Longest reason of a failure: it may be what a build has printed. */
const MAX_REASON = 4000;

const text = z.string().max(131_072);
/** What a build is asked to be. */
export const buildSchema = z.object({
  fromImage: text.nullish(),
  fromTemplate: text.nullish(),
  fromImageRegistry: z.unknown().optional(),
  steps: z
    .array(z.object({ type: text, args: z.array(text).default([]), filesHash: text.nullish() }))
    .max(1000)
    .default([]),
  startCmd: text.nullish(),
  readyCmd: text.nullish(),
});

type Wish = z.infer<typeof buildSchema>;

/** A line of a build. */
interface Line {
  timestamp: string;
  level: "info" | "warn" | "error";
  message: string;
  step?: string;
}

/** Names of E2B's own base image and what stands for it. */
const BASE_IMAGE = /^(?:docker\.io\/)?e2bdev\/base(?::latest)?$/;

/** The builds that this gateway does. */
export class Builds {
  private readonly context: ControlContext;
  private readonly lines = new Map<string, Line[]>();
  /** Characters of them. */
  private readonly sizes = new Map<string, number>();
  private readonly running = new Set<string>();

  constructor(context: ControlContext) {
    this.context = context;
  }

  /** Begin a build that was asked for; it goes on by itself. @throws not_found, invalid_argument */
  async begin(caller: Caller, template: KnownTemplate, buildId: string, wish: Wish): Promise<void> {
    const build = template.builds.find(({ id }) => id === buildId);
    if (build === undefined) throw new E2bError("not_found", `build '${buildId}' not found`);
    if (build.status !== "waiting" || this.running.has(buildId))
      throw new E2bError("already_exists", `build '${buildId}' was started already`);
    this.running.add(buildId);
    this.lines.set(buildId, []);
    this.sizes.set(buildId, 0);
    if (this.lines.size > MAX_KEPT) {
      const [oldest = ""] = this.lines.keys();
      this.lines.delete(oldest);
      this.sizes.delete(oldest);
    }
    try {
      await this.note(template.id, buildId, { status: "building" });
    } catch (error) {
      this.running.delete(buildId);
      throw error;
    }
    void this.run(caller, template.id, build, wish);
  }

  /** How a build stands. @param offset lines that the client has */
  async status(templateId: string, buildId: string, offset: number): Promise<object> {
    // Looked at first: a build that ends writes down how before it stops to run.
    const runs = this.running.has(buildId);
    const { templates } = await this.context.store.load();
    const template = templates.find(({ id }) => id === templateId);
    const build = template?.builds.find(({ id }) => id === buildId);
    if (build === undefined) throw new E2bError("not_found", `build '${buildId}' not found`);
    const entries = (this.lines.get(buildId) ?? []).slice(offset, offset + PAGE);
    const lost = build.status === "building" && !runs;
    const reason = lost ? { message: "the gateway was started anew meanwhile" } : build.reason;
    return {
      templateID: templateId,
      buildID: buildId,
      status: lost ? "error" : build.status,
      logs: entries.map(({ message }) => message),
      logEntries: entries,
      ...(reason === undefined ? {} : { reason }),
    };
  }

  private say(
    buildId: string,
    message: string,
    step?: string,
    level: Line["level"] = "info",
  ): void {
    const lines = this.lines.get(buildId);
    if (lines === undefined) return;
    const timestamp = new Date().toISOString();
    for (const line of message.split("\n").filter((part) => part !== "")) {
      const shown = line.slice(0, 8192);
      const size = (this.sizes.get(buildId) ?? 0) + shown.length;
      if (lines.length >= MAX_LINES || size > MAX_CHARACTERS) return;
      this.sizes.set(buildId, size);
      lines.push({ timestamp, level, message: shown, ...(step === undefined ? {} : { step }) });
    }
  }

  /** Remember what has become of a build. @returns false when it is no more */
  private async note(
    templateId: string,
    buildId: string,
    change: Partial<TemplateBuild>,
  ): Promise<boolean> {
    return await this.context.store.change(({ templates }) => {
      const template = templates.find(({ id }) => id === templateId);
      const build = template?.builds.find(({ id }) => id === buildId);
      if (template === undefined || build === undefined) return false;
      Object.assign(build, change);
      takeTags(template, build);
      return true;
    });
  }

  private async run(
    caller: Caller,
    templateId: string,
    build: TemplateBuild,
    wish: Wish,
  ): Promise<void> {
    const { id } = build;
    try {
      const made = await this.make(caller, build, wish);
      if (!(await this.note(templateId, id, { status: "ready", ...made }))) {
        const { snapshot } = made;
        if (snapshot !== undefined) await this.context.vmsan.snapshots.remove(snapshot);
        throw new E2bError("not_found", "the template was removed, or built anew too often");
      }
      this.say(id, "the template is ready");
    } catch (error) {
      const known: VmsanError = asVmsanError(error, "The build failed");
      const whole =
        error instanceof StepError || error instanceof E2bError
          ? error.message
          : [known.message, known.why].filter(Boolean).join(": ");
      const message = whole.slice(0, MAX_REASON);
      const step = error instanceof StepError ? error.step : undefined;
      this.say(id, message, step, "error");
      const reason = { message, ...(step === undefined ? {} : { step }) };
      await this.note(templateId, id, { status: "error", reason }).catch(() => undefined);
    } finally {
      this.running.delete(id);
    }
  }

  /** What sandboxes of a build are made of. */
  private async make(
    caller: Caller,
    build: TemplateBuild,
    wish: Wish,
  ): Promise<Partial<TemplateBuild>> {
    const from = await this.origin(caller, wish);
    const { user, workdir } = from;
    const scene: Scene = {
      env: [...(from.env ?? [])],
      ...(user === undefined ? {} : { user }),
      ...(workdir === undefined ? {} : { workdir }),
    };
    const idle = wish.steps.every(({ type }) => type === "ENV" || type === "USER");
    if (idle && !wish.startCmd && from.snapshot === undefined) {
      for (const [i, step] of wish.steps.entries()) setScene(scene, step, String(i));
      const { runtime, image } = from;
      return { ...(runtime === undefined ? { image } : { runtime }), ...scene };
    }
    return { snapshot: await this.inVm(caller, build, wish, from, scene), ...scene };
  }

  /** What a build begins with. */
  private async origin(
    caller: Caller,
    { fromImage, fromTemplate, fromImageRegistry }: Wish,
  ): Promise<Template> {
    if (fromImageRegistry !== undefined && fromImageRegistry !== null)
      throw new E2bError(
        "unimplemented",
        "logins of registries are not taken: use vmsan login on the host",
      );
    if (fromTemplate) return await resolveTemplate(this.context.store, caller, fromTemplate);
    if (!fromImage || BASE_IMAGE.test(fromImage)) return BASE;
    return { id: fromImage, image: fromImage };
  }

  /** Do the steps in a VM that is gone afterwards, also when this process dies. @returns its snapshot */
  private async inVm(
    caller: Caller,
    build: TemplateBuild,
    wish: Wish,
    from: Template,
    scene: Scene,
  ): Promise<string> {
    const { vmsan, gate, driver } = this.context;
    const { runtime, image, snapshot, env = [] } = from;
    const { vcpus = 1, memMib = 512 } = build;
    const of = runtime === undefined ? { image } : { runtime };
    const body = { ...(snapshot === undefined ? of : {}), env, vcpus, memMib, ephemeral: true };
    const request = remoteCreateRequest(caller, body, driver);
    const giveBack = gate.quotas.reserve(caller.key, [request], await occupied(vmsan, caller.key));
    let vm: Vm | undefined;
    try {
      const { labels, project } = request;
      vm =
        snapshot === undefined
          ? await vmsan.createFrom(request)
          : (await vmsan.clone(snapshot, { labels, project, networks: [], ephemeral: true }))[0];
    } finally {
      giveBack();
    }
    if (vm === undefined) throw new TypeError("A clone without a VM");
    try {
      const stage: Stage = {
        vm,
        scene,
        say: (message, step) => this.say(build.id, message, step),
        files: async (hash) => await this.context.uploads.open(caller.key.project, hash),
      };
      for (const [i, step] of wish.steps.entries()) {
        stage.say(`${step.type} ${step.args.join(" ")}`, String(i));
        await doStep(stage, step, String(i));
      }
      await startUp(stage, wish.startCmd, wish.readyCmd);
      // With what the steps have put in: a kernel more is a language more.
      await startInterpreter(vm);
      return (await vm.snapshot()).id;
    } finally {
      await vm.remove();
    }
  }
}
