/** buildah without vmsan, on this machine: what it makes of a case, and what an image holds. */
import { createHash } from "node:crypto";
import { chmod, mkdir, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../src/util/run.ts";
import type { BuiltRuntime } from "../../src/runtimes/index.ts";
import { put, tool } from "../e2e/images.ts";
import { treeOfDirectory } from "../registry/trees.ts";
import type { Tree } from "../registry/trees.ts";

/** How a build ended. */
export interface Built {
  code: number;
  output: string;
}

/** An image, in a form that can be compared. */
export interface Held {
  tree: Tree;
  config: Record<string, unknown>;
}

/** What of a configuration says who made it, and when. */
const MAKERS = new Set([
  "created",
  "container",
  "docker_version",
  "Id",
  "id",
  "parent",
  "size",
  "rootfs",
  "container_config",
  "Image",
  "Hostname",
  "history",
]);

/** Without what two builds of the same cannot have in common, and what is empty. */
function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  const pairs = Object.entries(value)
    .filter(([key]) => !MAKERS.has(key) && !key.startsWith("io.buildah."))
    .map(([key, inner]): [string, unknown] => [key, plain(inner)])
    .filter(
      ([, inner]) =>
        inner !== null && inner !== "" && inner !== false && JSON.stringify(inner) !== "{}",
    );
  return Object.fromEntries(pairs);
}

/**
 * The builder's own system, unpacked, to run its buildah on this machine.
 * @param runtimes VMSAN_DIR/runtimes, where it has been made
 * @param to a directory that is not there
 */
export async function unpackBuilder(runtimes: string, to: string): Promise<void> {
  const homes = (await readdir(runtimes)).filter((name) => name.startsWith("builder-"));
  const made = await Promise.all(
    homes.map(async (name) => {
      const text = await readFile(join(runtimes, name, "runtime.json"), "utf8");
      const { createdAt, layers } = JSON.parse(text) as BuiltRuntime;
      return {
        createdAt,
        blob: join(runtimes, name, "blobs/sha256", layers[0]?.digest.slice(7) ?? ""),
      };
    }),
  );
  const newest = made.toSorted((a, b) => b.createdAt.localeCompare(a.createdAt))[0];
  await mkdir(to);
  await tool("tar", "--zstd", "-xpf", newest?.blob ?? "", "-C", to);
}

/** A step without the digest of what was copied: buildah's versions count it differently, and the tree tells more. */
function told(step: unknown): string {
  return String(step).replace(
    /(#\(nop\) (?:COPY|ADD) (?:file|dir|multi|archive)):[0-9a-f]{64}/,
    "$1",
  );
}

/** buildah with a storage of its own; in the end {@link Buildah.remove} it. */
export class Buildah {
  readonly #place: string;
  readonly #root: string;

  /** @param root directory of another system to run buildah of; default this one's */
  constructor(place: string, root = "/") {
    this.#place = place;
    this.#root = root;
  }

  /** Run buildah. */
  async run(args: readonly string[]): Promise<Built> {
    const storage = [
      "--root",
      join(this.#place, "root"),
      "--runroot",
      join(this.#place, "run"),
      "--storage-driver",
      "vfs",
    ];
    const words = ["buildah", ...storage, ...args];
    // The other system as the root of a mount namespace, with this one's /tmp, where all paths lead.
    const script =
      'root=$1; shift; mount --bind "$root" "$root"; for d in proc sys dev tmp; do mount --rbind "/$d" "$root/$d"; done; cd "$root"; pivot_root . boot; exec "$@"';
    const argv =
      this.#root === "/"
        ? words
        : ["unshare", "-m", "sh", "-ec", script, "sh", this.#root, ...words];
    const [file = "", ...rest] = argv;
    // Without a program of networks newer ones refuse to start; in a chroot none is called.
    const helpers = join(this.#place, "helpers");
    await put(join(helpers, "netavark"), "");
    await chmod(join(helpers, "netavark"), 0o755);
    const conf = join(this.#place, "containers.conf");
    await put(
      conf,
      `[engine]\nhelper_binaries_dir = ["${helpers}"]\n[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n`,
    );
    const env = {
      ...process.env,
      BUILDAH_ISOLATION: "chroot",
      CONTAINERS_CONF: conf,
      TMPDIR: "/tmp",
      HOME: "/root",
    };
    const { code, stdout, stderr } = await run(file, rest, {
      env,
      timeoutMs: 300_000,
      maxOutput: 64 << 20,
    });
    return { code: code ?? -1, output: stdout + stderr };
  }

  /** The same of what must succeed. @returns standard output */
  async must(...args: string[]): Promise<string> {
    const { code, output } = await this.run(args);
    if (code !== 0) throw new Error(`buildah ${args.join(" ")}: ${output}`);
    return output.trim().split("\n").at(-1) ?? "";
  }

  /**
   * Build as vmsan does. @returns how it ended, and the image's identifier
   * @param dockerfile its path; undefined: to be found in the context
   */
  async build(
    dockerfile: string | undefined,
    context: string,
    flags: readonly string[],
  ): Promise<Built & { id: string }> {
    const iid = join(this.#place, "iid");
    await rm(iid, { force: true });
    const words = [
      "build",
      "--layers",
      "--format=docker",
      `--iidfile=${iid}`,
      ...(dockerfile === undefined ? [] : [`--file=${dockerfile}`]),
    ];
    const built = await this.run([...words, ...flags, context]);
    const id = built.code === 0 ? (await readFile(iid, "utf8")).trim() : "";
    return { ...built, id };
  }

  /** The same image without ONBUILD, which older ones run as soon as a container is made. @returns its identifier */
  async #withoutTriggers(id: string): Promise<string> {
    const dir = join(this.#place, "plain");
    await this.must("push", "-q", id, `dir:${dir}`);
    const manifestFile = join(dir, "manifest.json");
    const manifest = JSON.parse(await readFile(manifestFile, "utf8")) as {
      config: { digest: string; size: number };
    };
    const digest = manifest.config.digest.slice("sha256:".length);
    const config = JSON.parse(await readFile(join(dir, digest), "utf8")) as {
      config: { OnBuild?: unknown };
    };
    delete config.config.OnBuild;
    const text = Buffer.from(JSON.stringify(config));
    const changed = createHash("sha256").update(text).digest("hex");
    manifest.config = { ...manifest.config, digest: `sha256:${changed}`, size: text.length };
    await writeFile(join(dir, changed), text);
    await writeFile(manifestFile, JSON.stringify(manifest));
    const pulled = await this.must("pull", "-q", `dir:${dir}`);
    await rm(dir, { recursive: true });
    return pulled;
  }

  /** What an image of the storage holds. */
  async hold(id: string): Promise<Held> {
    const asked = await this.run(["inspect", "--type=image", id]);
    const { OnBuild: triggers = null } = (
      JSON.parse(asked.output) as { Docker: { config: { OnBuild?: unknown } } }
    ).Docker.config;
    const bare = triggers === null ? id : await this.#withoutTriggers(id);
    const container = await this.must("from", "--pull=never", bare);
    try {
      const dir = await this.must("mount", container);
      const { Docker: docker } = JSON.parse(asked.output) as { Docker: Record<string, unknown> };
      const history = (docker["history"] as Record<string, unknown>[] | undefined) ?? [];
      const steps = history.map(({ created_by: by, empty_layer: empty }) => ({
        by: told(by),
        empty: empty === true,
      }));
      return { tree: treeOfDirectory(dir), config: { ...(plain(docker) as object), steps } };
    } finally {
      await this.must("rm", container);
    }
  }

  /** Take the storage away. */
  async remove(): Promise<void> {
    await this.run(["rm", "--all"]);
    await rm(this.#place, { recursive: true, force: true });
  }
}
