/**
 * control/: the calls about all sandboxes of a key: make, list, end them; templates.
 *
 * templates.ts: which image or runtime a template's name means.
 */
import { withoutUndefined } from "../../../schema/api.ts";
import type { Caller } from "../../access/gate.ts";
import { E2bError } from "../errors.ts";
import { INTERPRETER_RUNTIME } from "./interpreter.ts";
import { findTemplate, isMeant } from "./store.ts";
import type { E2bStore } from "./store.ts";

/** What a sandbox is made of. */
export interface Template {
  /** What clients are told as its ID. */
  id: string;
  runtime?: string;
  image?: string;
  /** ID of a snapshot; sandboxes go on where it was taken. */
  snapshot?: string;
  vcpus?: number;
  memMib?: number;
  env?: string[];
  user?: string;
  workdir?: string;
}

/** `pip install` works in E2B's templates; Debian's pip wants to be told that it may. */
const PIP = ["PIP_BREAK_SYSTEM_PACKAGES=1"];

/** What stands for E2B's template `base`. */
export const BASE: Template = { id: "base", runtime: "e2b", env: PIP };

const INTERPRETER = { runtime: INTERPRETER_RUNTIME, memMib: 1024, env: PIP };

/** Names of E2B's own templates and the runtimes that stand for them. */
const OWN: Record<string, Template> = {
  base: BASE,
  "code-interpreter-v1": { id: "code-interpreter-v1", ...INTERPRETER },
  [INTERPRETER_RUNTIME]: { id: INTERPRETER_RUNTIME, ...INTERPRETER },
};

/** Runtimes that can be named as templates. */
const RUNTIMES = new Set(["e2b", "node22", "node24", "python3.13"]);

/** The template of a name, with or without `:default`; undefined for one that is not ours. */
function builtinTemplate(name: string): Template | undefined {
  const bare = name.replace(/:default$/, "");
  const own = Object.hasOwn(OWN, bare) ? OWN[bare] : undefined;
  if (own !== undefined) return own;
  return RUNTIMES.has(bare) ? { id: bare, runtime: bare } : undefined;
}

/**
 * The ID of the template of a name. One that was never built is as good as none: clients that ask whether it is
 * there build it then, again if the build before has failed.
 * @throws not_found
 */
export async function templateId(store: E2bStore, caller: Caller, name: string): Promise<string> {
  try {
    return (await resolveTemplate(store, caller, name)).id;
  } catch (error) {
    if (!(error instanceof E2bError) || error.code !== "failed_precondition") throw error;
    throw new E2bError("not_found", error.message);
  }
}

/**
 * What a caller means by a template's name or ID, or a snapshot's.
 * @throws not_found, failed_precondition for a template of which no build has come to its end
 */
export async function resolveTemplate(
  store: E2bStore,
  caller: Caller,
  name: string,
): Promise<Template> {
  const remembered = await store.load();
  const { snapshots } = remembered;
  const { key } = caller;
  const snapshot = snapshots.find((one) => isMeant(key, one, name));
  if (snapshot !== undefined) return { id: snapshot.id, snapshot: snapshot.id };
  const known = findTemplate(remembered, caller, name);
  if (known?.build?.status === "ready") {
    const { runtime, image, snapshot: ready, vcpus, memMib, env, user, workdir } = known.build;
    return withoutUndefined({
      id: known.template.id,
      runtime,
      image,
      snapshot: ready,
      vcpus,
      memMib,
      env,
      user,
      workdir,
    }) as unknown as Template;
  }
  if (known !== undefined)
    throw new E2bError("failed_precondition", `template '${name.slice(0, 200)}' is not built`, 400);
  const builtin = builtinTemplate(name);
  if (builtin !== undefined) return builtin;
  throw new E2bError("not_found", `template '${name.slice(0, 200)}' not found`);
}
