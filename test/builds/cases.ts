/**
 * builds/: Dockerfiles, and who says what they mean. Takes the folders of corpus/; gives contexts as
 * they are built, and what buildah without vmsan makes of them.
 *
 * cases.ts: the corpus. A case is a folder with a Dockerfile, a context (if it needs one), and
 * case.json, which says what is not plain. What git cannot keep of a context is made here.
 */
import {
  cp,
  lutimes,
  mkdir,
  readFile,
  readdir,
  rm,
  writeFile,
  chmod,
  link,
  rename,
} from "node:fs/promises";
import type { Dirent } from "node:fs";
import { createServer } from "node:net";
import { join, resolve } from "node:path";
import { tool } from "../e2e/images.ts";
import { busyboxLayer, put, umociImage } from "../e2e/images.ts";

const corpus = resolve(import.meta.dirname, "corpus");

/** What case.json may say. */
interface CaseFile {
  /** Words of the build besides Dockerfile, context and name. */
  flags?: string[];
  /** It fails, and says this. */
  fails?: string;
  /** It fails in the builder's storage (overlay) alone: that of the judge (vfs) takes it. */
  overlay?: boolean;
  /** Name of the result, for cases further on. */
  tag?: string;
  /** It has what an old buildah knows nothing of (heredocs): that is no judge of it. */
  newer?: boolean;
  /** The Dockerfile is found in the context, by its name. */
  found?: boolean;
  /** Where an older buildah does otherwise, which docs/build.md explains. */
  differs?: string[];
  /** It is given a secret `s`. */
  secret?: boolean;
  /** It is given SERVER, an address with files. */
  server?: boolean;
  /** It is given DIGEST, the base image's. */
  digest?: boolean;
  /** `none`: the Dockerfile comes by standard input, and there is no context. */
  context?: "none";
}

/** One Dockerfile of the corpus. */
export interface Case extends CaseFile {
  name: string;
  /** The case's folder. */
  dir: string;
}

/** All cases, in the order in which they are built. */
export async function readCases(): Promise<Case[]> {
  const names = (await readdir(corpus)).toSorted();
  return await Promise.all(
    names.map(async (name) => {
      const dir = join(corpus, name);
      const text = await readFile(join(dir, "case.json"), "utf8").catch(() => "{}"); // plain
      return { name, dir, ...(JSON.parse(text) as CaseFile) };
    }),
  );
}

/** The base image of the corpus, as an archive: busybox, some users, some things to change. */
export async function baseImage(place: string, name: string): Promise<string> {
  const source = await umociImage(
    join(place, "base"),
    [
      async (root) => {
        await busyboxLayer(root);
        await tool(
          "sh",
          "-c",
          'cd "$1" && for i in $(./busybox --list); do ln -sf busybox $i; done',
          "sh",
          join(root, "bin"),
        );
        await tool(
          "sh",
          "-c",
          'rm "$1/busybox"; cp /bin/busybox "$1/busybox"',
          "sh",
          join(root, "bin"),
        );
        const users = ["root:x:0:0:root:/root:/bin/sh", "worker:x:1234:5678::/home/worker:/bin/sh"];
        await put(join(root, "etc/passwd"), `${users.join("\n")}\n`);
        await put(join(root, "etc/group"), "root:x:0:\nworkers:x:5678:\nextra:x:42:worker\n");
        for (const dir of ["root", "usr/bin", "tmp"])
          await mkdir(join(root, dir), { recursive: true });
        await chmod(join(root, "tmp"), 0o1777);
      },
      async (root) => {
        for (const file of ["old/a", "old/b", "tree/deep/x", "tree/y"]) {
          await put(join(root, "opt", file), `${file}\n`);
        }
        await put(join(root, "opt/capable"), "x".repeat(4096));
        await tool("setcap", "cap_net_raw+ep", join(root, "opt/capable"));
      },
    ],
    { env: ["PATH=/bin:/usr/bin"], cmd: ["/bin/sh"] },
  );
  const archive = join(place, "base.tar");
  await tool("skopeo", "copy", "-q", source, `oci-archive:${archive}:${name}`);
  return archive;
}

/** An archive of a small tree with owners, modes and links. */
async function makeArchive(dir: string, file: string, ...words: string[]): Promise<void> {
  const tree = join(dir, ".tree");
  await put(join(tree, "d/f"), "f\n");
  await link(join(tree, "d/f"), join(tree, "d/hard"));
  await tool("ln", "-s", "f", join(tree, "d/soft"));
  await put(join(tree, "suid"), "s\n");
  await chmod(join(tree, "suid"), 0o4751);
  await chmod(join(tree, "d"), 0o1770);
  const common = ["--sort=name", "--owner=12", "--group=34", "--mtime=@1111111111"];
  await tool("tar", ...common, ...words, "-cf", join(dir, file), "-C", tree, "d", "suid");
  await rm(tree, { recursive: true });
}

/** What git cannot keep, by case. */
const MAKE: Record<string, (context: string) => Promise<void>> = {
  "add-archives": async (dir) => {
    await makeArchive(dir, "plain.tar");
    await makeArchive(dir, "gz.tar.gz", "-z");
    await makeArchive(dir, "bz.tar.bz2", "-j");
    await makeArchive(dir, "xz.tar.xz", "-J");
  },
  "add-archive-over": async (dir) => {
    const tree = join(dir, ".tree");
    await put(join(tree, "linked/in"), "in\n");
    await put(join(tree, "file"), "new\n");
    await chmod(tree, 0o755);
    await tool(
      "tar",
      "--sort=name",
      "--owner=5",
      "--group=6",
      "--mtime=@1111111111",
      "-cf",
      join(dir, "over.tar"),
      "-C",
      tree,
      ".",
    );
    await rm(tree, { recursive: true });
  },
  "add-no-archive": async (dir) => {
    await put(join(dir, "only"), "text\n");
    await tool("gzip", "-n", join(dir, "only"));
  },
  "large-context": async (dir) => {
    await mkdir(join(dir, "big"));
    await tool("fallocate", "-l", "1G", join(dir, "big/file"));
    for (let i = 0; i < 500; i += 1) await put(join(dir, `big/${i}`), `${i}\n`);
  },
  names: async (dir) => {
    const names = [
      "blank name/b c",
      "ünï",
      "n".repeat(255),
      'quo"te',
      "new\nline",
      "-dash",
      "$dollar",
      "back\\slash",
      "star*",
    ];
    for (const name of names) await put(join(dir, name), `${name.length}\n`);
  },
  "copy-special-files": async (dir) => {
    await tool("mkfifo", "-m", "640", join(dir, "fifo"));
    await tool("truncate", "-s", "3M", join(dir, "holes"));
    await tool("sh", "-c", 'printf end >>"$1"', "sh", join(dir, "holes"));
  },
  "copy-deep": async (dir) => {
    const deep = Array.from({ length: 40 }, (_, index) => `directory-${index}`).join("/");
    await put(join(dir, deep, "n".repeat(200), "end"), "deep\n");
    await tool("ln", "-s", "t".repeat(300), join(dir, "dangling"));
    for (let i = 0; i < 300; i += 1) await put(join(dir, `many/${"m".repeat(90)}-${i}`), "");
  },
  // What git is told to leave out.
  "app-node": async (dir) => put(join(dir, "node_modules/local/index.js"), "local\n"),
  "app-php": async (dir) => put(join(dir, "var/log/dev.log"), "said\n"),
  "context-sockets": async (dir) => {
    await put(join(dir, "file"), "file\n");
    await mkdir(join(dir, "run"));
    const server = createServer();
    await new Promise<void>((done) => server.listen(join(dir, "run/socket"), done));
    await rename(join(dir, "run/socket"), join(dir, "run/kept"));
    await new Promise((done) => server.close(done));
  },
  "holes-and-attributes": async (dir) => {
    await tool("truncate", "-s", "64M", join(dir, "holes"));
    await tool("sh", "-c", 'printf end >>"$1"', "sh", join(dir, "holes"));
    await put(join(dir, "plain"), "plain\n");
    await chmod(join(dir, "plain"), 0o2755);
    await tool("setfattr", "-n", "user.note", "-v", "kept", join(dir, "plain"));
    await mkdir(join(dir, "dir"));
    await tool("setfattr", "-n", "user.of.dir", "-v", "x".repeat(3000), join(dir, "dir"));
    await tool("ln", "-s", "../..", join(dir, "dir/up"));
  },
  "hard-links": async (dir) => {
    await put(join(dir, "a"), "linked\n");
    await link(join(dir, "a"), join(dir, "b"));
    await mkdir(join(dir, "d"));
    await link(join(dir, "a"), join(dir, "d/c"));
  },
  capabilities: async (dir) => {
    await put(join(dir, "capable"), "x\n");
    await tool("setcap", "cap_net_raw+ep", join(dir, "capable"));
    await tool("setfattr", "-n", "user.mine", "-v", "v", join(dir, "capable"));
  },
  modes: async (dir) => {
    for (const [name, mode] of Object.entries({
      suid: 0o4755,
      sgid: 0o2711,
      closed: 0o600,
      none: 0,
    })) {
      await put(join(dir, name), `${name}\n`);
      await chmod(join(dir, name), mode);
    }
    for (const [name, mode] of Object.entries({ sticky: 0o1777, group: 0o2750 })) {
      await mkdir(join(dir, name));
      await chmod(join(dir, name), mode);
    }
  },
};

/** Give everything a time of long ago, so that what a build made is known by its own. */
async function setTimes(dir: string): Promise<void> {
  const entries: Dirent[] = await readdir(dir, { withFileTypes: true, recursive: true });
  for (const [index, { parentPath, name }] of entries.entries()) {
    await lutimes(join(parentPath, name), 1_000_000_000, 1_000_000_000 + index);
  }
}

/** Make a case's context below a directory. @returns its path */
export async function makeContext({ name, dir }: Case, place: string): Promise<string> {
  const context = join(place, name);
  await mkdir(context, { recursive: true });
  const kept = (await readdir(dir)).includes("context");
  if (kept) await cp(join(dir, "context"), context, { recursive: true, verbatimSymlinks: true });
  // As a checkout's umask may not have it.
  await tool("chmod", "-R", "u=rwX,go=rX", context);
  await MAKE[name]?.(context);
  await setTimes(context);
  for (const file of (await readdir(dir)).filter((entry) => entry.startsWith("Dockerfile"))) {
    await writeFile(join(place, `${name}.${file}`), await readFile(join(dir, file)));
  }
  return context;
}
