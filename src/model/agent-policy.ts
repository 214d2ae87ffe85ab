/** What an agent that makes sandboxes through MCP may ask for. */
import type { NetworkPolicy } from "./policy.ts";

/** Limits of one session. */
export interface AgentPolicy {
  /** Images that it may name; `*` stands for any characters. The first one without it is the default. */
  images: readonly string[];
  /** Sandboxes at the same time. */
  maxSandboxes: number;
  /** Of one sandbox. */
  maxMemoryMib: number;
  maxVcpus: number;
  maxDiskGib: number;
  /** Modes that it may choose; the first one is the default. */
  networkModes: readonly NetworkPolicy["mode"][];
  /** Domains that `custom` may allow, `*.` before them for all below; absent: any. */
  networkDomains?: readonly string[];
  /** Longest that one command may run, in seconds. */
  maxCommandSeconds: number;
  /** Longest life of a sandbox, in minutes. */
  maxSandboxMinutes: number;
  /** Whether ports of sandboxes may be made reachable. */
  exposePorts: boolean;
  /** Sandboxes stay when their session ends. */
  keep: boolean;
}
