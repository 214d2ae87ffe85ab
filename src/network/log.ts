/** The decision log: a bounded ring for each VM, that can be followed. */
import type { FlowEvent } from "./helper.ts";
import type { NetworkDecision } from "./types.ts";

/** Lines kept for each VM. */
const capacity = 2000;

/** A decision before it has its number and time. */
export type Decision = Omit<NetworkDecision, "seq" | "time">;

/** A decision from a packet that the rules logged. */
export function decisionOf(event: FlowEvent): Decision {
  const protocols: Record<number, NetworkDecision["protocol"]> = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    58: "icmp",
  };
  return {
    verdict: event.prefix.startsWith("a:") ? "allowed" : "denied",
    protocol: protocols[event.protocol] ?? "other",
    address: event.address,
    ...(event.port === undefined ? {} : { port: event.port }),
    rule: event.prefix.slice(2),
  };
}

/** One VM's log. */
export class DecisionLog {
  private lines: NetworkDecision[] = [];
  private seq = 0;
  private waiting = new Set<() => void>();
  private closed = false;

  /** Add a line. */
  add(decision: Decision): void {
    this.seq += 1;
    this.lines.push({ seq: this.seq, time: new Date().toISOString(), ...decision });
    if (this.lines.length > 2 * capacity) this.lines = this.lines.slice(-capacity);
    this.wake();
  }

  /** Lines after number `since`, oldest first. */
  since(since: number): NetworkDecision[] {
    return this.lines.slice(-capacity).filter((line) => line.seq > since);
  }

  /** No more lines will come. */
  close(): void {
    this.closed = true;
    this.wake();
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }

  /** Lines from now on, until the log is closed or `signal` aborts. */
  async *follow(signal: AbortSignal): AsyncGenerator<NetworkDecision> {
    let last = this.seq;
    while (!signal.aborted) {
      for (const line of this.since(last)) {
        last = line.seq;
        yield line;
      }
      if (this.closed) return;
      if (this.seq > last || signal.aborted) continue;
      await new Promise<void>((resolve) => {
        const done = (): void => {
          signal.removeEventListener("abort", done);
          this.waiting.delete(done);
          resolve();
        };
        this.waiting.add(done);
        signal.addEventListener("abort", done, { once: true });
      });
    }
  }
}
