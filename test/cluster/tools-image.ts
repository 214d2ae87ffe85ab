/** The image of pods in tests of clusters: busybox under some of its names. */
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { busyboxLayer, put, tool, umociImage } from "../e2e/images.ts";

/** What pods call it, without its version. */
export const IMAGE = "docker.io/library/tools";

const NAMES = [
  "sha256sum",
  "tar",
  "stty",
  "grep",
  "wc",
  "tty",
  "httpd",
  "touch",
  "rm",
  "true",
  "false",
];

/**
 * An archive with the image in one version.
 * @param dir for what it is made of
 * @returns the archive's path, and what pods call the image
 */
export async function toolsArchive(
  dir: string,
  tag: string,
): Promise<{ path: string; image: string }> {
  const source = await umociImage(join(dir, tag), [
    busyboxLayer,
    async (rootfs) => {
      for (const name of NAMES) await symlink("busybox", join(rootfs, "bin", name));
      // As most images have it: tokens of ServiceAccounts are below.
      await mkdir(join(rootfs, "var"), { recursive: true });
      await mkdir(join(rootfs, "root"), { recursive: true });
      await symlink("/run", join(rootfs, "var/run"));
      await put(join(rootfs, "www/index.html"), "from the guest\n");
      await put(join(rootfs, "version"), tag);
    },
  ]);
  const image = `${IMAGE}:${tag}`;
  const path = join(dir, `tools-${tag}.tar`);
  await tool("skopeo", "copy", source, `docker-archive:${path}:${image}`);
  return { path, image };
}
