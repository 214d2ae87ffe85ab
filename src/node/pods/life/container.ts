/** The container of a pod: a VM and the main process in it, with its log. */
import { setTimeout as sleep } from "node:timers/promises";
import { endOthers, findMain, spawnMain } from "../../../containers/main.ts";
import { ContainerLog } from "../../../containers/logs/container-log.ts";
import { Run } from "../../../containers/run.ts";
import type { RunEnd, Sink } from "../../../containers/run.ts";
import type { WorkOptions } from "../../../client/daemon.ts";
import type { Vm } from "../../../client/vm.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { POD_MAIN_LABEL, WAIT_COMMAND } from "../../../kube/pod-words.ts";
import { messageOf } from "../../../model/errors.ts";
import type { Pod, PodContainer, PodRecord } from "../../../schema/pod.ts";
import type { Slots } from "../../../util/flow/slots.ts";
import { PodNotReadyError, whyOf } from "../spec/failure.ts";
import type { FilledPlace } from "../files/volumes.ts";
import { commandUser, isRoot, mustNotBeRoot } from "../spec/plan.ts";
import { withGroups } from "../../../containers/user.ts";
import type { PodPlan } from "../spec/plan.ts";
import type { PodImages } from "../starting/images.ts";
import { ensureRuns, furnish, messageFile, removeVm } from "./guest.ts";
import { runHook } from "../probes/hooks.ts";
import type { PodStore } from "./store.ts";
import { LONGEST_MS } from "./timers.ts";
import type { PodVolumes } from "../starting/volumes.ts";

/** How much is kept of one run's output: 64 MiB. */
const LOG_LIMITS = { fileBytes: 4 << 20, files: 16 };
/** The pause after a first attempt to remove a VM, and the longest one, in milliseconds. */
const REMOVE_PAUSE_MS = 500;
const LONGEST_REMOVE_PAUSE_MS = 30_000;
/** After so many attempts it is told that they fail. */
const REMOVE_ATTEMPTS = 10;

/** As whom and where a VM waits in which nothing is started. */
const WAIT_OPTIONS = { user: "0", workdir: "/" };

function argvOf({ idle, command, args }: PodPlan, vm: Vm): string[] {
  if (idle) return [...WAIT_COMMAND];
  return command === undefined ? vm.commandLine(args) : [...command, ...args];
}

/** How long the agent of a VM that is found may take with its answer, in milliseconds. */
const ANSWER_MS = 60_000;
/** How long a command has after TERM at least, in milliseconds, whatever was done before. */
const SHORTEST_GRACE_MS = 1_000;
/** How long what was killed may take to end, in milliseconds, before its VM is taken away. */
const KILL_MS = 5_000;

/** What a start is given. */
export type StartWork = Required<WorkOptions>;

/** What a container needs of its node. */
export interface ContainerContext {
  vmsan: Vmsan;
  store: PodStore;
  volumes: PodVolumes;
  images: PodImages;
  /** VMs that are being taken away at once. */
  removing: Slots;
  /** Told what goes wrong beside its life. */
  complain: (error: unknown) => void;
  /** Its main process has ended. */
  onEnd: (end: RunEnd) => void;
  /** What it wants done has failed. */
  onHookFailed: (message: string) => void;
  /** Its VM could not be removed many times in a row; that is still tried. */
  onStays: (message: string) => void;
}

/** A command that could not be started, as an end of it. */
function notStarted(error: unknown): RunEnd {
  const message = messageOf(error);
  const exitCode = /no such file|not found/i.test(message) ? 127 : 128;
  return { exitCode, oomKilled: false, error: message };
}

/** Do something beside a command: no longer than that runs, and than it is wanted. */
async function whileItRuns(
  run: Run,
  wanted: AbortSignal,
  act: (signal: AbortSignal) => Promise<string | undefined>,
): Promise<string | undefined> {
  const over = new AbortController();
  void run.ended.then(() => over.abort());
  try {
    return await act(AbortSignal.any([over.signal, wanted]));
  } catch (error) {
    if (over.signal.aborted || wanted.aborted) return undefined;
    throw error;
  }
}

/** One container. */
export class Container {
  vm: Vm | undefined;
  run: Run | undefined;
  log: ContainerLog | undefined;
  /** Whoever is attached. */
  readonly sinks = new Set<Sink>();
  private released = false;
  private readonly record: PodRecord;
  private readonly spec: PodContainer;
  private readonly context: ContainerContext;
  /** Ends a wait for the command's own end. */
  private hurryUp: () => void = () => undefined;

  constructor(spec: PodContainer, record: PodRecord, context: ContainerContext) {
    this.spec = spec;
    this.record = record;
    this.context = context;
  }

  /** Have what its VM is made of be there. @throws PodNotReadyError, ERR_IMAGE_*, ERR_VOLUME_* */
  async prepare(pod: Pod, plan: PodPlan, work: StartWork): Promise<void> {
    const { volumes, images } = this.context;
    await this.remove();
    await volumes.ensure(pod.metadata.namespace, plan.volumes, work.signal);
    if (plan.vm.snapshot !== undefined) return;
    plan.vm.pull = await images.fetch(pod, this.spec, plan.references, work);
    if (plan.groups.length === 0 && !mustNotBeRoot(pod, this.spec)) return;
    const user =
      plan.vm.user ?? (await this.context.vmsan.images.inspect(this.spec.image)).config.user ?? "";
    // Before a VM is made: another attempt follows, and another.
    this.checkUser(pod, user);
    if (plan.groups.length > 0) plan.vm.user = withGroups(user, plan.groups);
  }

  /** Make its VM. @throws PodNotReadyError, and what VMs are not made for */
  async make(pod: Pod, plan: PodPlan, work: StartWork): Promise<void> {
    const { vmsan, images } = this.context;
    let vm: Vm;
    try {
      vm = await vmsan.create(plan.vm, work);
    } catch (error) {
      images.forget(this.spec);
      throw error;
    }
    // Written down once its command runs: until then its label tells whose it is.
    this.record.vm = vm.id;
    this.vm = vm;
    this.checkUser(pod, commandUser(vm.view));
    work.onProgress({ phase: "files" });
    // Root writes its last words where it likes; others need the file, and so does who can make none.
    const message = isRoot(commandUser(vm.view)) && !plan.sealed ? [] : this.messageFile();
    await furnish(vm, plan, message, work.signal);
    work.signal.throwIfAborted();
  }

  /** The file, empty, that its command may leave its last words in. */
  private messageFile(): FilledPlace[] {
    const { terminationMessagePath: path } = this.spec;
    return path ? messageFile(path) : [];
  }

  /** @throws PodNotReadyError when it must not be root, and is, or may be */
  private checkUser(pod: Pod, user: string): void {
    if (!mustNotBeRoot(pod, this.spec)) return;
    if (/^0*[1-9]\d*(:|$)/.test(user)) return;
    throw new PodNotReadyError(
      "CreateContainerConfigError",
      isRoot(user)
        ? "container has runAsNonRoot and would run as root"
        : `container has runAsNonRoot and its user ${JSON.stringify(user)} is no number`,
    );
  }

  /** Start its command in the VM that runs. What cannot be started has ended with it. */
  async launch(plan: PodPlan): Promise<void> {
    const { vm, record, context } = this;
    if (vm === undefined) throw new TypeError("A container without a VM");
    let run: Run;
    try {
      const argv = argvOf(plan, vm);
      const tty = this.spec.tty === true;
      const options = {
        ...(plan.idle ? WAIT_OPTIONS : {}),
        label: POD_MAIN_LABEL,
        stdin: this.spec.stdin === true,
        ...(tty ? { tty: { rows: 24, cols: 80, term: "xterm" } } : {}),
      };
      this.log = this.openLog();
      run = new Run(
        vm,
        (io) => spawnMain(vm, argv, options, io),
        this.log,
        this.sinks,
        context.complain,
      );
      await run.stream.started;
    } catch (error) {
      context.onEnd(notStarted(error));
      return;
    }
    record.run = run.stream.id;
    record.startedAt = new Date().toISOString();
    this.tookUp(run);
    try {
      context.store.save(record);
    } catch (error) {
      // It runs, and its label tells whose it is: to begin anew would be to run it twice.
      context.complain(error);
    }
  }

  private openLog(): ContainerLog {
    const { record, context } = this;
    const dir = context.store.logDir(record.uid, record.restarts);
    return new ContainerLog(dir, LOG_LIMITS, context.complain);
  }

  private tookUp(run: Run): void {
    this.run = run;
    void run.ended.then((end) => {
      if (this.run !== run) return;
      this.run = undefined;
      this.context.onEnd(end);
      this.log?.wake();
    });
  }

  /**
   * Take up a VM that runs this container already.
   * @param ran whether the API server was told that it runs
   * @returns false when its command was never started in it
   */
  async adopt(vm: Vm, ran: boolean): Promise<boolean> {
    const { record } = this;
    this.vm = vm;
    record.vm = vm.id;
    if (vm.view.status === "paused" || vm.view.status === "suspended") await vm.resume();
    else if (vm.view.status !== "running") {
      if (!ran && record.run === undefined) return false;
      this.context.onEnd({ exitCode: 137, oomKilled: false, error: "the microVM has ended" });
      return true;
    }
    const limit = AbortSignal.timeout(ANSWER_MS);
    const found = record.run === undefined ? await findMain(vm, POD_MAIN_LABEL, limit) : undefined;
    const id = record.run ?? found?.id;
    if (id === undefined) return false;
    const log = this.openLog();
    this.log = log;
    const from = await log.begin(id);
    // What is not in this log and was taken from the guest is an earlier pod's.
    for (const kind of ["stdout", "stderr"] as const) {
      from[kind] = Math.max(from[kind], found?.[kind].start ?? 0);
      log.skip(kind, from[kind]);
    }
    record.run = id;
    this.tookUp(
      new Run(
        vm,
        (io) => vm.attach(id, { ...io, from }),
        log,
        this.sinks,
        this.context.complain,
        true,
      ),
    );
    return true;
  }

  /**
   * Start its command again: in its VM, with its disk, if that is still there.
   * @returns false when there is no VM any more
   */
  async again(plan: PodPlan): Promise<boolean> {
    const { vm, record } = this;
    if (vm === undefined) return false;
    try {
      const booted = await ensureRuns(vm);
      if (!booted) await endOthers(vm, AbortSignal.timeout(ANSWER_MS));
    } catch (error) {
      this.context.complain(error);
      return false;
    }
    // The last words of the run before are not this one's.
    await furnish(vm, plan, this.messageFile());
    delete record.run;
    await this.launch(plan);
    return true;
  }

  /** Do what it wants done right after its start. @returns why that has failed; undefined: it has not */
  async afterStart(signal: AbortSignal): Promise<string | undefined> {
    const { vm, run } = this;
    const hook = this.spec.lifecycle?.postStart;
    if (!hook || vm === undefined || run === undefined) return undefined;
    return await whileItRuns(run, signal, async (both) => await runHook(vm, this.spec, hook, both));
  }

  /** Do what it wants done right before its end; what goes wrong with that is told. */
  private async beforeEnd(run: Run, graceSeconds: number, hurry: AbortSignal): Promise<void> {
    const { vm, context } = this;
    const hook = this.spec.lifecycle?.preStop;
    if (!hook || vm === undefined) return;
    const failed = await whileItRuns(
      run,
      hurry,
      async (signal) => await runHook(vm, this.spec, hook, signal, graceSeconds),
    );
    if (failed !== undefined) context.onHookFailed(failed);
  }

  /**
   * End its command: TERM, and KILL when it does not end in time; what it wants done before is done within that time.
   * Resolves once it has ended.
   */
  async stop(graceSeconds: number): Promise<void> {
    const { run } = this;
    if (run === undefined) return;
    const ended = run.ended.then(() => true);
    if (graceSeconds > 0) {
      const hurry = new AbortController();
      this.hurryUp = () => hurry.abort();
      const since = performance.now();
      await this.beforeEnd(run, graceSeconds, hurry.signal);
      const left = Math.min(graceSeconds * 1000 - (performance.now() - since), LONGEST_MS);
      run.stream.signal("TERM");
      // Aborted: nobody waits for it any more.
      const late = sleep(Math.max(left, SHORTEST_GRACE_MS), false, {
        ref: false,
        signal: hurry.signal,
      }).catch(() => false);
      if (await Promise.race([ended, late])) return;
    }
    run.stream.signal("KILL", true);
    if (await Promise.race([ended, sleep(KILL_MS, false, { ref: false })])) return;
    // A guest that does not even do that is not asked again.
    await this.vm?.stop(0).catch(this.context.complain);
    await run.watch();
    await ended;
  }

  /** Whoever waits for its end in {@link stop} need not any longer. */
  hurry(): void {
    this.hurryUp();
  }

  /** Take its VM away with its disk. */
  async remove(): Promise<void> {
    const { record } = this;
    const { run } = this;
    if (record.vm !== undefined) await this.removeSurely(record.vm);
    await run?.watch();
    this.vm = undefined;
    delete record.vm;
    delete record.run;
  }

  /** A daemon that was killed in the middle of it, or could not, is asked again for as long as it takes: nobody else would. */
  private async removeSurely(id: string): Promise<void> {
    const { context } = this;
    for (let attempt = 1; ; attempt += 1) {
      try {
        await context.removing.run(async () => await removeVm(context.vmsan, id));
        return;
      } catch (error) {
        if (this.released) throw error;
        context.complain(error);
        if (attempt === REMOVE_ATTEMPTS) context.onStays(`cannot remove ${id}: ${whyOf(error)}`);
      }
      const ms = Math.min(REMOVE_PAUSE_MS * attempt, LONGEST_REMOVE_PAUSE_MS);
      await sleep(ms, undefined, { ref: false });
    }
  }

  /** Its VM is kept for another pod: this one has none any more. */
  async leave(): Promise<void> {
    await this.detach();
    this.vm = undefined;
    delete this.record.vm;
    delete this.record.run;
  }

  /** This process ends: the container goes on, and the next one takes it up. */
  async release(): Promise<void> {
    this.released = true;
    await this.detach();
  }

  /** What its command prints is not taken any more, and its end not heard of. */
  private async detach(): Promise<void> {
    const { run } = this;
    this.run = undefined;
    run?.stream.detach();
    await run?.ended;
  }
}
