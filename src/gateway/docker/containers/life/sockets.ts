/** The engine's socket in a container that mounts it: there while its main process runs. */
import type { Forwarding } from "../../../../agent/ports.ts";
import type { Vm } from "../../../../client/vm.ts";
import type { ContainerRecord } from "../../../../schema/docker.ts";

/** How a guest is led to the engine by a socket at a path there. */
export type LeadToEngine = (vm: Vm, path: string) => Promise<Forwarding>;

/** What such sockets lead to. */
export interface EngineRelay {
  lead: LeadToEngine;
  /** Serve them no more. */
  close(): Promise<void>;
}

/** Such sockets of one container. */
export class EngineSockets {
  private readonly record: ContainerRecord;
  private readonly lead: LeadToEngine;
  private open: Forwarding[] = [];

  constructor(record: ContainerRecord, lead: LeadToEngine) {
    this.record = record;
    this.lead = lead;
  }

  /** Have them in its guest. */
  async begin(vm: Vm): Promise<void> {
    await this.end();
    for (const { Engine, Destination } of this.record.mounts) {
      if (Engine === true) this.open.push(await this.lead(vm, Destination));
    }
  }

  /** Have them no more; with the VM they go by themselves. */
  async end(): Promise<void> {
    await Promise.all(this.open.splice(0).map(async (one) => await one.close()));
  }
}
