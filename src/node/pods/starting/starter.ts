/** Starts the command of one pod, as often as it takes, and says why it does not come up. */
import { setTimeout as sleep } from "node:timers/promises";
import type { ApiServer } from "../../../kube/api-server.ts";
import type { Pod } from "../../../schema/pod.ts";
import { startFailure } from "../spec/failure.ts";
import { planPod } from "../spec/plan.ts";
import type { PodHost, PodPlan } from "../spec/plan.ts";
import type { Slots } from "../../../util/flow/slots.ts";
import type { Container } from "../life/container.ts";
import type { LiveFiles } from "../files/live.ts";
import { retryPause } from "./restarts.ts";
import { StartWatch } from "./start-watch.ts";
import type { Reason } from "../life/steps.ts";

/** What the starts of all pods share. */
export interface StarterContext {
  api: ApiServer;
  host: PodHost;
  /** VMs that are being started at once. */
  starting: Slots;
}

/** What a start is made of, and who is told of it. */
interface StarterParts {
  /** As the API server has it now. */
  pod: () => Pod;
  context: StarterContext;
  box: Container;
  files: LiveFiles;
  /** Aborted when it is not wanted any more. */
  signal: AbortSignal;
  /** Its command was started; it may have ended already. */
  onLaunched: () => void;
  /** What it wants done right after its start has failed. */
  onHookFailed: (message: string) => void;
  /** It was not; another attempt follows. */
  onTrouble: (why: Reason) => void;
  /** It takes long, and what it is at. */
  onLate: (message: string) => void;
  /** It was not, and no other attempt would go better. */
  onHopeless: (why: Reason) => Promise<void>;
}

/** The starts of one pod. */
export class Starter {
  private readonly parts: StarterParts;
  private readonly watch: StartWatch;

  constructor(parts: StarterParts) {
    this.parts = parts;
    this.watch = new StartWatch(parts.onLate);
  }

  /** Make its VM and start its command in it. */
  async start(): Promise<void> {
    const { pod, context, box, files, signal } = this.parts;
    for (let failed = 0; !signal.aborted; failed += 1) {
      let trouble: Reason | undefined;
      this.watch.begin();
      try {
        this.watch.at("what it names in the cluster is read");
        const plan = await this.plan();
        const work = { signal, onProgress: this.watch.onProgress };
        this.watch.at("its volumes are made");
        await box.prepare(pod(), plan, work);
        this.watch.at("other pods are being started");
        await context.starting.run(async () => {
          this.watch.at("its VM is made");
          await box.make(pod(), plan, work);
          files.wrote(plan.files);
          await box.launch(plan);
        }, signal);
        await this.launched();
        return;
      } catch (error) {
        if (signal.aborted) return;
        trouble = await this.troubleOf(error);
        if (trouble === undefined) return;
      } finally {
        this.watch.end();
      }
      const ms = retryPause(failed, trouble.reason === "ErrImagePull");
      // AbortError: it is not wanted any more.
      await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** Start its command again: in its VM if that is there, else in a new one. */
  async again(): Promise<void> {
    this.watch.begin();
    this.watch.at("its VM is started again");
    try {
      // Its command may have ended because of files that changed: two that write them would take each other's away.
      await this.parts.files.idle();
      const plan = await this.plan();
      if (await this.parts.box.again(plan)) {
        this.parts.files.wrote(plan.files);
        await this.launched();
        return;
      }
    } catch (error) {
      if ((await this.troubleOf(error)) === undefined) return;
    } finally {
      this.watch.end();
    }
    await this.start();
  }

  /** Its command was started: it runs once that is done which it wants done then. */
  private async launched(): Promise<void> {
    const { box, signal, onLaunched, onHookFailed } = this.parts;
    const failed = await box.afterStart(signal);
    onLaunched();
    if (failed !== undefined) onHookFailed(failed);
  }

  private async plan(): Promise<PodPlan> {
    const { pod, context, files } = this.parts;
    return await planPod(pod(), context.host, context.api, files.tokens);
  }

  /** Say why it was not started. @returns undefined when no other attempt would go better */
  private async troubleOf(error: unknown): Promise<Reason | undefined> {
    const { lasting, reason, message } = startFailure(error);
    const why = { reason, message };
    if (lasting) {
      await this.parts.onHopeless(why);
      return undefined;
    }
    this.parts.onTrouble(why);
    return why;
  }
}
