/** What may be changed of a pod that runs, by its annotations: when it ends, and what it may reach. */
import { isDeepStrictEqual } from "node:util";
import { policyOf } from "../../../client/options.ts";
import type { Vm } from "../../../client/vm.ts";
import { messageOf } from "../../../model/errors.ts";
import { POD_ANNOTATION } from "../../../kube/pod-words.ts";
import type { Pod } from "../../../schema/pod.ts";
import { endOf, networkWishes } from "../spec/annotations.ts";
import { Timers } from "./timers.ts";

/** Longest that is waited at once, in milliseconds: clocks are set. */
const LOOK_MS = 3_600_000;

/** What is done for a pod. */
export interface LiveWishesParts {
  /** Its VM while that runs. */
  vm: () => Vm | undefined;
  /** Its time is over. @param remove its object is to go too */
  atEnd: (remove: boolean) => void;
  /** What it wants now cannot be, and why. */
  onRefused: (message: string) => void;
}

/** Has a pod be as its annotations want it now. */
export class LiveWishes {
  private readonly parts: LiveWishesParts;
  private readonly timers = new Timers();
  private pod: Pod | undefined;
  private changing: Promise<void> = Promise.resolve();

  constructor(parts: LiveWishesParts) {
    this.parts = parts;
  }

  /** Take in how the pod is now; called again once its VM runs. */
  take(pod: Pod): void {
    this.pod = pod;
    this.timers.clear();
    if (pod.metadata.deletionTimestamp) return;
    this.look();
    this.changing = this.changing.then(async () => {
      try {
        await this.setPolicy();
      } catch (error) {
        this.parts.onRefused(`its network policy stays as it is: ${messageOf(error)}`);
      }
    });
  }

  /** Nothing is looked at any more. */
  close(): void {
    this.pod = undefined;
    this.timers.clear();
  }

  private look(): void {
    const end = endOf(this.pod?.metadata.annotations);
    if (end === undefined) return;
    const left = end.at - Date.now();
    if (left > 0) this.timers.after(Math.min(left, LOOK_MS), () => this.look());
    else this.parts.atEnd(end.remove);
  }

  /** Put the policy of the annotations in force, unless it is. */
  private async setPolicy(): Promise<void> {
    const annotations = this.pod?.metadata.annotations;
    const vm = this.parts.vm();
    // What goes on from a snapshot has that one's policy until it is told another.
    const own = annotations?.[POD_ANNOTATION.snapshot] !== undefined;
    const wishes = networkWishes(annotations);
    if (vm === undefined || (own && Object.keys(wishes).length === 0)) return;
    const policy = policyOf(wishes);
    if (!isDeepStrictEqual(vm.view.policy, policy)) await vm.setPolicy(policy);
  }
}
