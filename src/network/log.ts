/** The decision log: a bounded ring for each VM, that can be followed. */
import { Ring } from "../util/flow/ring.ts";
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
export class DecisionLog extends Ring<Decision> {
  private readonly told: (decision: NetworkDecision) => void;

  /** @param told is called with each decision; returns quickly and never throws */
  constructor(told: (decision: NetworkDecision) => void) {
    super(capacity);
    this.told = told;
  }

  override add(decision: Decision): NetworkDecision {
    const line = super.add(decision);
    this.told(line);
    return line;
  }
}
