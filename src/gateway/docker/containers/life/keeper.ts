/** A container's VM while the gateway runs: there when it is needed, stopped when it is not. */
import type { Vm } from "../../../../client/vm.ts";
import type { Vmsan } from "../../../../client/vmsan.ts";
import type { ContainerRecord } from "../../../../schema/docker.ts";
import type { GatewayDriver } from "../../../native/bodies.ts";
import { endOthers } from "../../../../containers/main.ts";
import { haltVm, runningVm } from "./guest.ts";
import { isLost } from "../../../../containers/main.ts";

/** How long a VM goes on that was started for its files alone, in milliseconds. */
const LINGER_MS = 10_000;

/** What keeps the VM of one container. */
export class VmKeeper {
  /** While it runs, as far as is known. */
  vm: Vm | undefined;
  private readonly record: ContainerRecord;
  private readonly vmsan: Vmsan;
  private readonly driver: GatewayDriver;
  private timer: NodeJS.Timeout | undefined;

  constructor(record: ContainerRecord, vmsan: Vmsan, driver: GatewayDriver) {
    this.record = record;
    this.vmsan = vmsan;
    this.driver = driver;
  }

  /** Have it run. */
  async ensure(): Promise<Vm> {
    this.keep();
    const { record } = this;
    const had = record.vm !== undefined;
    try {
      this.vm = await runningVm(this.vmsan, record, this.driver);
      return this.vm;
    } catch (error) {
      // One that nothing has run in is made anew (a gateway may have been killed while it was made); a disk
      // that is lost is not passed over.
      if (record.state.status !== "created" || !isLost(error)) throw error;
      delete record.vm;
      if (!had) throw error;
      this.vm = await runningVm(this.vmsan, record, this.driver);
      return this.vm;
    }
  }

  /** Stop it, its disk stays. @param graceMs until it is stopped by force; default: nobody is in a hurry */
  async halt(graceMs?: number): Promise<void> {
    if (this.vmsan.cluster && graceMs === undefined) {
      // A pod that is stopped has no disk any more: what the container has left running ends, and the VM stays.
      if (this.vm !== undefined) await endOthers(this.vm);
      return;
    }
    await haltVm(this.vmsan, this.record, graceMs);
    this.vm = undefined;
  }

  /** Call a little later, unless it is needed before. */
  linger(body: () => void): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(body, LINGER_MS);
    this.timer.unref();
  }

  /** It is needed. */
  keep(): void {
    clearTimeout(this.timer);
  }

  /** Give it another size, stopped. */
  async resize(memMib: number, vcpus: number): Promise<void> {
    const { record } = this;
    if (record.vm !== undefined) {
      await this.halt();
      await this.vmsan.update(record.vm, { memory: memMib, vcpus });
    }
    record.memMib = memMib;
    record.vcpus = vcpus;
  }

  /** Take it away with its disk. */
  async remove(): Promise<void> {
    this.keep();
    if (this.record.vm !== undefined) await this.vmsan.remove(this.record.vm, { force: true });
  }
}
