/** The file that says what agents may ask for through MCP. */
import * as z from "zod";
import type { AgentPolicy } from "../model/agent-policy.ts";
import { validate, withoutUndefined } from "./api.ts";

const word = z.string().min(1).max(300);

const domain = word.regex(
  /^(?:\*\.)?[^\s/:@#?%\\[\]*]+$/,
  "must be a name such as example.com, or *.example.com; leave the list out for any",
);

const policySchema = z.strictObject({
  images: z.array(word).min(1).max(1000).default(["base", "*"]),
  maxSandboxes: z.int().min(1).max(1000).default(8),
  maxMemoryMib: z.int().min(128).max(1_048_576).default(2048),
  maxVcpus: z.int().min(1).max(32).default(2),
  maxDiskGib: z.int().min(1).max(1024).default(10),
  networkModes: z
    .array(z.enum(["none", "deny-all", "custom", "allow-all"]))
    .min(1)
    .default(["allow-all", "custom", "deny-all", "none"]),
  networkDomains: z.array(domain).max(1000).optional(),
  maxCommandSeconds: z.int().min(1).max(86_400).default(600),
  maxSandboxMinutes: z.int().min(1).max(10_080).default(240),
  exposePorts: z.boolean().default(true),
  keep: z.boolean().default(false),
});

/** Read a policy; what it leaves out has defaults. @throws ERR_MCP_POLICY */
export function parseAgentPolicy(value: unknown): AgentPolicy {
  const parsed = validate(policySchema, value, "policy for agents", "ERR_MCP_POLICY");
  return withoutUndefined(parsed) as AgentPolicy;
}
