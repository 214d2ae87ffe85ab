/** Who waits for a container: for its end, its removal, or its input. */
import type { Writable } from "node:stream";

/** Promises that are settled by what becomes of one container. */
export class Waiters {
  private exits: (() => void)[] = [];
  private removals: (() => void)[] = [];
  private inputs: ((stdin: Writable | undefined) => void)[] = [];

  /** Resolves when its main process has ended the next time, or it has been removed. */
  async exit(): Promise<void> {
    await new Promise<void>((resolve) => this.exits.push(resolve));
  }

  /** Resolves when it has been removed. */
  async removal(): Promise<void> {
    await new Promise<void>((resolve) => this.removals.push(resolve));
  }

  /** The main process's input, once it runs; undefined when it could not be started. */
  async input(): Promise<Writable | undefined> {
    return await new Promise((resolve) => this.inputs.push(resolve));
  }

  /** The main process has ended. */
  ended(): void {
    for (const resolve of this.exits.splice(0)) resolve();
  }

  /** It is no more. */
  removed(): void {
    this.ended();
    this.started(undefined);
    for (const resolve of this.removals.splice(0)) resolve();
  }

  /** The main process runs, or does not. */
  started(stdin: Writable | undefined): void {
    for (const resolve of this.inputs.splice(0)) resolve(stdin);
  }
}
