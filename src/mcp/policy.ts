/** What a session asks for, held against its policy. */
import { readFile } from "node:fs/promises";
import type { CreateOptions } from "../client/options.ts";
import { isHostSource } from "../client/options.ts";
import type { AgentPolicy } from "../model/agent-policy.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { NetworkPolicy } from "../model/policy.ts";
import { parseAgentPolicy } from "../schema/agent-policy.ts";

/** Read a policy's file; none: the defaults. @throws ERR_MCP_POLICY */
export async function loadPolicy(path: string | undefined): Promise<AgentPolicy> {
  if (path === undefined) return parseAgentPolicy({});
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, "utf8"));
  } catch (error) {
    throw new VmsanError(
      {
        code: "ERR_MCP_POLICY",
        message: `Cannot read the policy ${path}`,
        why: messageOf(error),
        fix: "Give a JSON file; see docs/mcp.md.",
      },
      error,
    );
  }
  return parseAgentPolicy(value);
}

/** The error for what the policy does not allow. */
export function refused(what: string, why: string): VmsanError {
  return new VmsanError({
    code: "ERR_MCP_REFUSED",
    message: `Not allowed here: ${what}`,
    why,
    fix: "Ask for something within that, or have the policy of this MCP server changed.",
  });
}

/**
 * Whether a pattern fits, in which `*` is any characters, behind `:` or `@` any but `/`: else `python:*` would be any image of a
 * registry `python:5000`. In time that grows with the product of their lengths.
 */
function fits(pattern: string, text: string): boolean {
  // How much of the text the pattern so far may have taken.
  let taken = new Set([0]);
  for (let index = 0; index < pattern.length; index += 1) {
    const char = pattern.charAt(index);
    const next = new Set<number>();
    for (const at of taken) {
      if (char !== "*") {
        if (text.startsWith(char, at)) next.add(at + 1);
        continue;
      }
      const isPart = /[:@]/.test(pattern.charAt(index - 1));
      for (let end = at; end <= text.length && !next.has(end); end += 1) {
        next.add(end);
        if (isPart && text[end] === "/") break;
      }
    }
    taken = next;
  }
  return taken.has(text.length);
}

/** The image to use. @throws ERR_MCP_REFUSED */
export function allowedImage(policy: AgentPolicy, wanted: string | undefined): string {
  const image = wanted ?? policy.images.find((pattern) => !pattern.includes("*"));
  if (image === undefined) {
    throw refused("a sandbox without an image", `Name one of: ${policy.images.join(", ")}.`);
  }
  if (isHostSource(image)) {
    throw refused(`image ${JSON.stringify(image)}`, "It names something of the host's own.");
  }
  if (!policy.images.some((pattern) => fits(pattern, image))) {
    throw refused(`image ${JSON.stringify(image)}`, `Allowed: ${policy.images.join(", ")}.`);
  }
  return image;
}

/** Whether all that one domain pattern means is among what others mean. */
function covered(domain: string, patterns: readonly string[]): boolean {
  const name = domain.toLowerCase();
  return patterns.some((pattern) => {
    const lower = pattern.toLowerCase();
    if (lower === name) return true;
    return lower.startsWith("*.") && name.replace(/^\*\./, "x.").endsWith(lower.slice(1));
  });
}

/** What a session may ask of the network. */
export interface NetworkWish {
  mode?: NetworkPolicy["mode"] | undefined;
  domains?: readonly string[] | undefined;
}

/** The network's part of a sandbox's options. @throws ERR_MCP_REFUSED */
export function allowedNetwork(
  policy: AgentPolicy,
  { mode, domains = [] }: NetworkWish,
): Pick<CreateOptions, "networkPolicy" | "allowedDomains"> {
  const chosen = mode ?? (domains.length > 0 ? "custom" : policy.networkModes[0]);
  if (chosen === undefined || !policy.networkModes.includes(chosen)) {
    throw refused(`network ${chosen}`, `Allowed: ${policy.networkModes.join(", ")}.`);
  }
  if (chosen !== "custom") {
    if (domains.length > 0) throw refused("domains", "They belong to the network mode custom.");
    return { networkPolicy: chosen };
  }
  const { networkDomains } = policy;
  const foreign = networkDomains && domains.find((domain) => !covered(domain, networkDomains));
  if (foreign !== undefined) {
    throw refused(`domain ${foreign}`, `Allowed: ${networkDomains?.join(", ")}.`);
  }
  return { networkPolicy: chosen, allowedDomains: [...domains] };
}

/** A number within its limit. @throws ERR_MCP_REFUSED */
export function within(what: string, wanted: number, limit: number): number {
  if (wanted <= limit) return wanted;
  throw refused(`${what} ${wanted}`, `At most ${limit}.`);
}
