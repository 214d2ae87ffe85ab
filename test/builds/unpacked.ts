/** An image's tree by vmsan's disk, and by other people's tools: skopeo copies it, umoci unpacks it. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { expect } from "vitest";
import type { Installation } from "../fixtures/ladder.ts";
import { tool } from "../e2e/images.ts";
import { vmsanOk } from "../e2e/support.ts";
import { treeOfDirectory, treeOfDisk } from "../registry/trees.ts";
import type { Tree } from "../registry/trees.ts";

/**
 * An image of the store unpacks to the same tree for everybody: contents, times, links, owners, devices.
 * @param place a directory for archives and trees
 */
export async function expectUnpackedAlike(
  { dir, vmsan }: Installation,
  name: string,
  place: string,
): Promise<void> {
  const at = (file: string): string => join(place, file);
  await vmsanOk(["image", "save", name, "-o", at("saved.tar")], { dir });
  // Debian's umoci reads no zstd, which runtimes' layers are; what skopeo compresses anew is gzip.
  const plain = `dir:${at("plain")}`;
  await tool("skopeo", "copy", "-q", "--dest-decompress", `oci-archive:${at("saved.tar")}`, plain);
  await tool("skopeo", "copy", "-q", plain, `oci:${at("copied")}:x`);
  await rm(at("saved.tar"));
  await tool("umoci", "unpack", "--image", `${at("copied")}:x`, at("bundle"));
  await vmsan.images.disk(name, at("disk.ext4"));
  const ours = treeOfDisk(at("disk.ext4"), at("scratch"));
  delete ours["lost+found"];
  const theirs = treeOfDirectory(at("bundle/rootfs"));
  for (const [path, entry] of Object.entries(ours)) {
    // umoci sets the times of directories before it is done with what is in them.
    if (entry.type === "directory") entry.mtime = theirs[path]?.mtime ?? "";
  }
  expect(Object.keys(ours)).toHaveLength(Object.keys(theirs).length);
  // Not all at once: of so many entries a difference is not shown.
  const told = (value: unknown): unknown => JSON.parse(JSON.stringify(value ?? null));
  const differing = Object.keys(ours).filter(
    (path) => !isDeepStrictEqual(told(ours[path]), told(theirs[path])),
  );
  const few = differing.slice(0, 10);
  const of = (tree: Tree): unknown[] => few.map((path) => ({ path, ...tree[path] }));
  expect(of(ours)).toEqual(of(theirs));
}
