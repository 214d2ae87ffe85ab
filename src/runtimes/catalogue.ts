/**
 * runtimes/: names for images (`base`, `node22` …). Takes the catalogue and a directory, gives an
 * image source for a name: an image reference as it is, or an OCI layout made here from Debian's
 * packages and npm's, cached and complete, without root, mounts, loop devices or Docker.
 *
 * catalogue.ts: the built-in catalogue and the user's file over it.
 */
import { readFile } from "node:fs/promises";
import { VmsanError, errnoOf, messageOf } from "../model/errors.ts";
import { catalogueSchema, type Runtime } from "../schema/runtimes.ts";

export type { Runtime } from "../schema/runtimes.ts";

const user = { user: "ubuntu", workdir: "/home/ubuntu" } as const;
const env = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"];

/** What every runtime made from Debian's packages has. */
const DEBIAN_PACKAGES = [
  "ca-certificates",
  "curl",
  "git",
  "iproute2",
  "less",
  "openssl",
  "procps",
  "sudo",
  "tar",
  "unzip",
  "xz-utils",
  "zip",
];

/** What the builder has: buildah, what it calls, and what is there to look around with. */
const BUILDER_PACKAGES = [
  "base-files",
  "base-passwd",
  "bash",
  "buildah",
  "bzip2",
  "ca-certificates",
  "coreutils",
  "dash",
  "findutils",
  "git",
  "grep",
  "gzip",
  "mount",
  "sed",
  "tar",
  "util-linux",
  "xz-utils",
  "zstd",
];

/** What vmsan brings; a user's file can replace, add and take away entries. */
export const builtinRuntimes: Readonly<Record<string, Runtime>> = {
  base: {
    description: "Debian with git, curl, openssl and the usual archive tools",
    recipe: {
      kind: "debian",
      packages: DEBIAN_PACKAGES,
    },
    ...user,
    env,
    cmd: ["/bin/bash"],
  },
  node22: {
    description: "base with Node.js 22 and npm",
    recipe: { kind: "node", from: "base", version: "22", npm: "10" },
    ...user,
    env,
    cmd: ["node"],
  },
  node24: {
    description: "base with Node.js 24 and npm",
    recipe: { kind: "node", from: "base", version: "24", npm: "11" },
    ...user,
    env,
    cmd: ["node"],
  },
  e2b: {
    description: "what clients of E2B expect of their base template",
    recipe: {
      kind: "debian",
      packages: [...DEBIAN_PACKAGES, "python-is-python3", "python3", "python3-pip", "util-linux"],
    },
    user: "user",
    workdir: "/home/user",
    env,
    cmd: ["/bin/bash"],
  },
  "code-interpreter": {
    description: "what E2B's code interpreter clients run code in: `jupyter` with Node.js 24",
    recipe: { kind: "node", from: "jupyter", version: "24", npm: "11" },
    user: "user",
    workdir: "/home/user",
    env,
    cmd: ["/bin/bash"],
  },
  jupyter: {
    description: "Debian with Python, Jupyter's kernel for it, pandas and matplotlib",
    recipe: {
      kind: "debian",
      packages: [
        ...DEBIAN_PACKAGES,
        "python-is-python3",
        "python3",
        "python3-ipykernel",
        "python3-jupyter-client",
        "python3-matplotlib",
        "python3-numpy",
        "python3-pandas",
        "python3-pip",
        "python3-requests",
        "python3-tornado",
        "util-linux",
      ],
    },
    user: "user",
    workdir: "/home/user",
    env,
    cmd: ["/bin/bash"],
  },
  builder: {
    description: "what `vmsan build` works in: buildah, as root",
    recipe: {
      kind: "debian",
      // Heredocs came with buildah 1.33; Debian 12 has 1.28, Ubuntu 22.04 1.23.
      oldest: {
        debian: { version: "13", suite: "trixie" },
        ubuntu: { version: "24.04", suite: "noble" },
      },
      unpack: true,
      packages: BUILDER_PACKAGES,
    },
    user: "root",
    workdir: "/",
    env,
    cmd: ["/bin/bash"],
  },
  "python3.13": {
    description: "Python 3.13 on Debian, from a registry",
    image: "python:3.13-slim",
    cmd: ["python3"],
  },
};

/** A catalogue file that cannot be used. */
function catalogueError(file: string, why: string, cause?: unknown): VmsanError {
  return new VmsanError(
    {
      code: "ERR_VALIDATION_RUNTIME",
      message: `Cannot use the catalogue of runtimes ${file}`,
      why,
      fix: "Correct the file (docs/runtimes.md says what it may hold), or remove it to get the built-in runtimes.",
    },
    cause,
  );
}

/**
 * The built-in runtimes with the user's over them.
 * @param file the user's catalogue, e.g. VMSAN_DIR/runtimes.json; need not exist
 * @throws ERR_VALIDATION_RUNTIME for a file that says something else
 */
export async function readCatalogue(file: string): Promise<Record<string, Runtime>> {
  const runtimes: Record<string, Runtime> = { ...builtinRuntimes };
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return runtimes;
    throw catalogueError(file, messageOf(error), error);
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw catalogueError(file, messageOf(error), error);
  }
  const parsed = catalogueSchema.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw catalogueError(file, `${issue?.path.join(".") ?? ""}: ${issue?.message ?? ""}`);
  }
  for (const [name, runtime] of Object.entries(parsed.data.runtimes)) {
    if (runtime === null) delete runtimes[name];
    else runtimes[name] = runtime;
  }
  for (const [name, { recipe }] of Object.entries(runtimes)) {
    if (recipe?.kind !== "node" || runtimes[recipe.from]?.recipe?.kind === "debian") continue;
    throw catalogueError(
      file,
      `${name}: its "from" names ${JSON.stringify(recipe.from)}, which is no runtime made from Debian packages.`,
    );
  }
  return runtimes;
}

/**
 * A runtime by name.
 * @throws ERR_VALIDATION_RUNTIME with the names there are
 */
export function findRuntime(catalogue: Record<string, Runtime>, name: string): Runtime {
  const found = Object.hasOwn(catalogue, name) ? catalogue[name] : undefined;
  if (found !== undefined) return found;
  throw new VmsanError({
    code: "ERR_VALIDATION_RUNTIME",
    message: `Unknown runtime: ${JSON.stringify(name)}`,
    why: `There are ${Object.keys(catalogue).sort().join(", ")}.`,
    fix: "Use one of them, or --from-image with any image.",
  });
}
