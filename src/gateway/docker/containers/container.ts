/** One container, and what may be done to it: signals, an end, a pause, another size, removal; and how it is taken up. */
import { setTimeout as sleep } from "node:timers/promises";
import { DockerError } from "../errors.ts";
import { answerToName, placeAgain } from "./life/guest.ts";
import { mainBefore } from "./life/main-process.ts";
import { Run } from "../../../containers/run.ts";
import { Life } from "./life/life.ts";

/** How long what was killed may take to end, in milliseconds, before its VM is. */
const KILL_MS = 10_000;

/** A container. */
export class Container extends Life {
  /** Send its main process a signal. @throws 409 when it does not run, 400 for a signal that is none */
  async kill(signal: string): Promise<void> {
    const { run } = this;
    if (this.record.state.status === "restarting") {
      this.record.stoppedByHand = true;
      return await this.cancelRestart();
    }
    if (run === undefined) {
      throw new DockerError(
        409,
        `Cannot kill container: ${this.id}: container ${this.id} is not running`,
      );
    }
    const name = signal.replace(/^SIG/i, "").toUpperCase();
    const killing = name === "KILL" || name === "9";
    try {
      run.stream.signal(name, killing);
    } catch (error) {
      throw new DockerError(400, `invalid signal: ${signal.slice(0, 60)}`, error);
    }
    if (killing || name === "TERM" || name === "INT" || name === "15")
      this.record.stoppedByHand = true;
    this.tell("kill", { signal: name });
    if (!killing) return;
    if (this.record.state.status === "paused") await this.keeper.vm?.resume();
    // As with Docker, whoever looks after a KILL sees it ended.
    await this.makeSure(run);
  }

  /** End a VM whose main process does not end although it was killed. */
  private async makeSure(run: Run): Promise<void> {
    const late = sleep(KILL_MS, true, { ref: false });
    if (!(await Promise.race([run.ended.then(() => false), late]))) return;
    await this.keeper.halt(0).catch(this.complain);
    await run.watch();
  }

  private async cancelRestart(): Promise<void> {
    clearTimeout(this.restartTimer);
    this.record.state.status = "exited";
    this.waiters.ended();
    await this.save();
    void this.haltIdle();
  }

  /** Stop it. @param seconds until it is killed. @returns false when it does not run */
  async stop(seconds?: number, signal?: string): Promise<boolean> {
    return await this.serial(async () => {
      this.check();
      if (this.record.state.status === "restarting") {
        this.record.stoppedByHand = true;
        await this.cancelRestart();
        return true;
      }
      const { run, record } = this;
      if (run === undefined) return false;
      record.stoppedByHand = true;
      if (record.state.status === "paused") await this.unpauseNow();
      const wait = seconds ?? record.config.StopTimeout ?? 10;
      const name = signal ?? record.config.StopSignal ?? "TERM";
      await this.kill(wait === 0 ? "KILL" : name);
      if (wait !== 0) {
        // What a timer cannot wait for, some 24 days, is as good as for ever.
        const never = wait < 0 || wait * 1000 >= 2 ** 31;
        const late = never ? new Promise<boolean>(() => undefined) : sleep(wait * 1000, true);
        if (await Promise.race([run.ended.then(() => false), late])) await this.kill("KILL");
      }
      await run.ended;
      this.tell("stop");
      await this.save();
      if (!this.removesItself) await this.keeper.halt();
      return true;
    });
  }

  /**
   * Stop it, and start it again. Meanwhile it is shown as one that restarts: compose asks as soon as it hears of the end,
   * and leaves off watching what has ended for good.
   */
  async restart(seconds?: number, signal?: string): Promise<void> {
    this.returns += 1;
    try {
      await this.stop(seconds, signal);
      await this.start();
    } finally {
      this.returns -= 1;
    }
    this.tell("restart");
  }

  /** Halt its processors. @throws 409 */
  async pause(): Promise<void> {
    await this.serial(async () => {
      if (this.record.state.status === "paused") {
        throw new DockerError(409, `Container ${this.id} is already paused`);
      }
      const vm = await this.runningGuest();
      await vm.pause();
      this.record.state.status = "paused";
      this.tell("pause");
      await this.save();
    });
  }

  /** Let it go on. @throws 409 */
  async unpause(): Promise<void> {
    await this.serial(async () => {
      if (this.record.state.status !== "paused") {
        throw new DockerError(409, `Container ${this.id} is not paused`);
      }
      await this.unpauseNow();
    });
  }

  private async unpauseNow(): Promise<void> {
    await this.keeper.vm?.resume();
    this.record.state.status = "running";
    this.tell("unpause");
    await this.save();
  }

  /** Give it another name, by which its networks know it too. @param checked gives it, or says why not, just before */
  async rename(checked: () => string): Promise<void> {
    await this.serial(async () => {
      this.check();
      const { record } = this;
      const before = record.name;
      if (record.state.status === "paused") {
        throw new DockerError(
          409,
          `Container ${before} is paused, unpause it before it is renamed`,
        );
      }
      record.name = checked();
      // The name is nobody else's from here on, and the next gateway goes on with it.
      await this.save();
      await answerToName(this.context.vmsan, record);
      this.tell("rename", { oldName: `/${before}` });
    });
    await this.refresh();
  }

  /** Look at its VM again, which has been changed. */
  async refresh(): Promise<void> {
    if (this.running) await this.keeper.vm?.refresh();
  }

  /** Another size for its VM, which is stopped for that. */
  async resizeVm(memMib: number, vcpus: number): Promise<void> {
    await this.serial(async () => {
      this.check();
      await this.keeper.resize(memMib, vcpus);
    });
  }

  /** Give its terminal a size, now or when it is started. */
  resize(rows: number, cols: number): void {
    if (rows < 1 || cols < 1) return;
    this.ttySize = { rows, cols };
    this.run?.stream.resize(rows, cols);
    this.tell("resize", { height: String(rows), width: String(cols) });
  }

  /** Remove it with its disk. @throws 409 while it runs, without `force` */
  async remove(force: boolean): Promise<void> {
    await this.serial(async () => {
      this.check();
      if (this.active && !force) {
        const what = this.record.state.status;
        throw new DockerError(
          409,
          `cannot remove container "/${this.record.name}": container is ${what}: stop the container before removing or force remove`,
        );
      }
      clearTimeout(this.restartTimer);
      const { run } = this;
      this.record.stoppedByHand = true;
      if (run !== undefined && this.record.state.status === "running") {
        run.stream.signal("KILL", true);
        await Promise.race([run.ended, sleep(2_000, undefined, { ref: false })]);
      }
      await this.destroy();
    });
  }

  /** The gateway ends: it goes on without, and the next one takes it up. */
  async release(): Promise<void> {
    this.keeper.keep();
    clearTimeout(this.restartTimer);
    this.health.end();
    const { run } = this;
    this.run = undefined;
    run?.stream.detach();
    await run?.ended;
    await this.sockets.end().catch(this.complain);
    await this.ending;
  }

  /** Find out what is true of it, when the gateway starts: its VM and the process are what counts. */
  async reconcile(): Promise<void> {
    await this.serial(async () => {
      const { record, context, active } = this;
      const { state } = record;
      const found = await mainBefore(context.vmsan, record).catch((error: unknown) => {
        if (active) throw error;
        this.complain(error);
        return undefined;
      });
      if (!active && (found === undefined || found.stream === record.run)) {
        if (this.removesItself && state.status === "exited") await this.destroy();
        // The gateway before may have been killed while it was used for its files, or being stopped.
        else void this.haltIdle();
        return;
      }
      if (found === undefined) return await this.lost();
      const { vm, stream, info } = found;
      this.keeper.vm = vm;
      if (info !== undefined) {
        await placeAgain(context.vmsan, vm, record).catch(this.complain);
        await this.sockets.begin(vm).catch(this.complain);
      }
      const from = (await this.log?.begin(stream)) ?? { stdout: 0, stderr: 0 };
      const run = new Run(
        vm,
        (io) => vm.attach(stream, { ...io, from }),
        this.log,
        this.sinks,
        this.complain,
        true,
      );
      const known = stream === record.run;
      this.tookUp(run);
      if (known || info === undefined) {
        state.status = info === undefined ? "paused" : "running";
        return this.health.goOn();
      }
      // The gateway before was killed when it had started it, before it could write so.
      if (!active) record.stoppedByHand = false;
      // A guest's clock may say anything.
      await this.began(info.pid, Date.parse(info.startedAt) || Date.now());
    });
  }

  /** It ran, and its VM does no more: as after a power cut. */
  private async lost(): Promise<void> {
    const { state } = this.record;
    state.status = "exited";
    state.exitCode = 137;
    state.error = "the microVM has ended";
    state.finishedAt = new Date().toISOString();
    state.pid = 0;
    if (this.removesItself) await this.destroy();
    else await this.save();
  }
}
