/**
 * The builder that leaves the file system to e2fsprogs: merged archive, `tar -x`, `mkfs.ext4 -d`.
 * Slower by far, and an ordinary user's build loses owners, devices and more (it says so); kept as
 * an oracle and for those who trust nothing else. Needs tar, mkfs.ext4 and debugfs.
 */
import { mkdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { DiskBuilder, DiskOptions } from "../model/disk.ts";
import { removeTree } from "../util/files/remove-tree.ts";
import { runOk } from "../util/run.ts";
import { asidePath } from "./aside.ts";
import { runBuild } from "./build.ts";
import { identityOf, imageKey } from "./identity.ts";

const VERSION = "1";
const CODE = "ERR_DISK_MKE2FS";

/** Bytes as a UUID's text. */
function uuidText(bytes: Uint8Array): string {
  return Buffer.from(bytes)
    .toString("hex")
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Arguments of mkfs.ext4. */
function mkfsArguments(
  tree: string,
  output: string,
  options: DiskOptions,
  identity: { uuid: Uint8Array; hashSeed: Uint8Array },
  entries: number,
): string[] {
  const extended = ["lazy_itable_init=1", `hash_seed=${uuidText(identity.hashSeed)}`];
  const inodes = Math.max(Math.ceil(options.sizeBytes / 16_384), entries + 64);
  return [
    "-q",
    "-F",
    "-t",
    "ext4",
    "-b",
    "4096",
    "-I",
    "256",
    "-m",
    "0",
    "-O",
    options.journal ? "has_journal" : "^has_journal",
    "-E",
    extended.join(","),
    "-U",
    uuidText(identity.uuid),
    "-N",
    String(inodes),
    ...(options.label === undefined ? [] : ["-L", options.label]),
    "-d",
    tree,
    output,
    `${options.sizeBytes / 1024}k`,
  ];
}

/** Extract, then mkfs.ext4 -d. */
export const mke2fsBuilder: DiskBuilder = {
  name: "mke2fs",
  version: VERSION,
  async build(layers, output, options, context) {
    const started = performance.now();
    const { signal } = context;
    const identity = identityOf(imageKey(layers, options, "mke2fs", VERSION));
    const aside = await asidePath(output);
    signal.throwIfAborted();
    const tree = join(aside, "tree");
    const archive = join(aside, "merged.tar");
    const image = join(aside, "image");
    await mkdir(tree, { recursive: true });
    try {
      const result = await runBuild(
        layers,
        { output: archive, format: "tar", options, identity },
        context,
      );
      const extractAt = performance.now();
      await runOk(
        "tar",
        [
          "-x",
          "-p",
          "-f",
          archive,
          "-C",
          tree,
          "--numeric-owner",
          "--delay-directory-restore",
          "--xattrs",
          "--xattrs-include=*",
        ],
        CODE,
        { signal },
      );
      await rm(archive);
      const mkfsAt = performance.now();
      const { mode, uid, gid } = await stat(tree);
      await runOk(
        "mkfs.ext4",
        mkfsArguments(tree, image, options, identity, result.entries),
        CODE,
        {
          signal,
        },
      );
      // Not every version copies the root directory's own metadata.
      for (const [field, value] of [
        ["mode", `0${mode.toString(8)}`],
        ["uid", String(uid)],
        ["gid", String(gid)],
      ] as const) {
        await runOk("debugfs", ["-w", "-R", `set_inode_field / ${field} ${value}`, image], CODE, {
          signal,
        });
      }
      const done = performance.now();
      await rename(image, output);
      const { blocks } = await stat(output);
      return {
        builder: "mke2fs",
        builderVersion: VERSION,
        sizeBytes: options.sizeBytes,
        allocatedBytes: blocks * 512,
        ...result,
        seconds: {
          ...result.seconds,
          extract: (mkfsAt - extractAt) / 1000,
          mkfs: (done - mkfsAt) / 1000,
          total: (done - started) / 1000,
        },
      };
    } finally {
      await removeTree(aside);
    }
  },
};
