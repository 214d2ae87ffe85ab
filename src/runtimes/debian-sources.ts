/** Where Debian packages come from: the recipe's own mirror and release, else what the host's apt knows. */
import { access, readFile } from "node:fs/promises";
import { VmsanError } from "../model/errors.ts";
import type { DebianRecipe } from "../schema/runtimes.ts";
import { run } from "../util/run.ts";

/** Where packages come from. */
export interface DebianSources {
  suite: string;
  /** Lines of sources.list(5). */
  lines: string[];
}

const keyrings: Record<string, string> = {
  debian: "/usr/share/keyrings/debian-archive-keyring.gpg",
  ubuntu: "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
};

/** A distribution's release. */
export interface Release {
  id: string;
  codename: string;
  /** `12`, `24.04`; empty for one that is not released yet. */
  version: string;
}

/** The host's distribution and release, from os-release(5). */
export async function hostRelease(): Promise<Release> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => ""); // no such file: unknown
  const field = (name: string): string =>
    new RegExp(`^${name}="?([^"\n]*)"?$`, "m").exec(text)?.[1] ?? "";
  return {
    id: field("ID"),
    codename: field("VERSION_CODENAME"),
    version: field("VERSION_ID"),
  };
}

/** The release that a recipe takes on a host: its own, else the host's, unless that is too old for it. */
export function suiteFor(recipe: DebianRecipe, host: Release): string {
  if (recipe.suite !== undefined) return recipe.suite;
  const oldest = recipe.oldest?.[host.id as "debian" | "ubuntu"];
  // One without a number is not released yet: newer than all that are.
  if (oldest === undefined || host.version === "") return host.codename;
  return Number(host.version) < Number(oldest.version) ? oldest.suite : host.codename;
}

/**
 * Lines for sources.list of `suite` and its updates from where the host's apt has its own.
 * @param targets lines `URI RELEASE COMPONENT`, of apt-get indextargets
 * @param option what stands in each line, e.g. `[signed-by=…] `
 */
export function linesFrom(targets: string, host: Release, suite: string, option: string): string[] {
  const found = new Set<string>();
  const fallback = new Set<string>();
  for (const target of targets.split("\n")) {
    const [uri = "", release = "", component = ""] = target.split(" ");
    if (!/^[a-z+]+:\//.test(uri) || !["main", "universe"].includes(component)) continue;
    for (const suffix of ["", "-updates", "-security"]) {
      const line = `deb ${option}${uri} ${suite}${suffix} ${component}`;
      if (release === `${suite}${suffix}`) found.add(line);
      // A mirror that has the host's release has the others beside it.
      if (release === `${host.codename}${suffix}`) fallback.add(line);
    }
  }
  return [...(found.size > 0 ? found : fallback)].sort();
}

/** The same of this host's apt. */
async function hostSources(host: Release, suite: string, option: string): Promise<string[]> {
  const format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
  const listed = await run("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]);
  return linesFrom(listed.stdout, host, suite, option);
}

/** Whether a file is there. */
async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

/**
 * The recipe's own mirror and suite, else the host's. Reads only local files.
 * @throws ERR_RUNTIME_SOURCES when neither is known
 */
export async function debianSources(recipe: DebianRecipe): Promise<DebianSources> {
  const host = await hostRelease();
  const suite = suiteFor(recipe, host);
  const keyring = keyrings[host.id];
  const option = keyring !== undefined && (await exists(keyring)) ? `[signed-by=${keyring}] ` : "";
  if (suite !== "") {
    if (recipe.mirror !== undefined) {
      return { suite, lines: [`deb ${option}${recipe.mirror} ${suite} main`] };
    }
    if (keyring !== undefined) {
      const lines = await hostSources(host, suite, option);
      if (lines.length > 0) return { suite, lines };
    }
  }
  throw new VmsanError({
    code: "ERR_RUNTIME_SOURCES",
    message: `Cannot tell where to get Debian packages${suite === "" ? "" : ` of ${suite}`} from`,
    why: "This host's apt has no such source, and none is given.",
    fix: "Give one: vmsan setup --mirror URL --suite NAME; or make the runtime an image in runtimes.json.",
  });
}
