/**
 * control/: the calls about all sandboxes of a key: make, list, end them; templates.
 *
 * templates.ts: which image or runtime a template's name means.
 */
import { E2bError } from "../errors.ts";

/** What a sandbox is made of. */
export interface Template {
  /** What clients are told as its ID. */
  id: string;
  runtime?: string;
  image?: string;
  vcpus?: number;
  memMib?: number;
  env?: string[];
}

/** Names of E2B's own templates and the runtimes that stand for them. */
const OWN: Record<string, Template> = {
  base: { id: "base", runtime: "e2b" },
};

/** Runtimes that can be named as templates. */
const RUNTIMES = new Set(["base", "e2b", "node22", "node24", "python3.13"]);

/** The template of a name, with or without `:default`. @throws not_found */
export function builtinTemplate(name: string): Template {
  const bare = name.replace(/:default$/, "");
  const own = Object.hasOwn(OWN, bare) ? OWN[bare] : undefined;
  if (own !== undefined) return own;
  if (RUNTIMES.has(bare)) return { id: bare, runtime: bare };
  throw new E2bError("not_found", `template '${name.slice(0, 200)}' not found`);
}
