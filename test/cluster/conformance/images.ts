/** The images of Kubernetes' own tests, as far as they can be made of what its modules and Debian have. */
import { chmod, copyFile, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { put, tool, umociImage } from "../../e2e/images.ts";
import type { ConfigFlags, LayerStep } from "../../e2e/images.ts";

const REGISTRY = "registry.k8s.io";
/** Who only wants a web server that runs gets busybox's. */
const WEB: ConfigFlags = { cmd: ["busybox", "httpd", "-f", "-p", "80"] };

/** As the tests of this version name them. */
const IMAGES: Record<string, ConfigFlags> = {
  [`${REGISTRY}/e2e-test-images/agnhost:2.66.1`]: { entrypoint: ["/agnhost"], cmd: ["pause"] },
  [`${REGISTRY}/e2e-test-images/agnhost:2.55`]: { entrypoint: ["/agnhost"], cmd: ["pause"] },
  [`${REGISTRY}/e2e-test-images/busybox:1.37.0-2`]: { cmd: ["sh"] },
  [`${REGISTRY}/pause:3.10.2`]: { entrypoint: ["/agnhost"], cmd: ["pause"] },
  [`${REGISTRY}/e2e-test-images/nonroot:1.5`]: {
    entrypoint: ["/agnhost"],
    cmd: ["pause"],
    user: "1234",
  },
  [`${REGISTRY}/e2e-test-images/nonewprivs:1.4`]: { cmd: ["nnp"] },
  [`${REGISTRY}/e2e-test-images/nginx:1.27.0-2`]: WEB,
  [`${REGISTRY}/e2e-test-images/nginx:1.28.0-2`]: WEB,
};

/** Programs that Kubernetes has for its tests, built. */
export interface Made {
  agnhost: string;
  nnp: string;
  /**
   * A static bash. Debian's BusyBox hands on no variables with names as Kubernetes allows them (findings/sh-environment-names.sh), which
   * tests ask for with `sh -c env`.
   */
  shell: string;
}

/** Busybox under all its names, and agnhost under its two. */
function userland({ agnhost, nnp, shell }: Made): LayerStep {
  return async (rootfs) => {
    const bin = join(rootfs, "bin");
    for (const name of ["bin", "etc", "tmp", "uploads", "var", "root", "home"]) {
      await mkdir(join(rootfs, name), { recursive: true });
    }
    await chmod(join(rootfs, "tmp"), 0o1777);
    await copyFile("/bin/busybox", join(bin, "busybox"));
    const names = (await tool("/bin/busybox", "--list")).trim().split("\n");
    const own = new Set(["busybox", "sh", "bash"]);
    for (const name of names) if (!own.has(name)) await symlink("busybox", join(bin, name));
    await copyFile(shell, join(bin, "bash"));
    await symlink("bash", join(bin, "sh"));
    await put(
      join(rootfs, "etc/passwd"),
      "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    );
    await put(join(rootfs, "etc/group"), "root:x:0:\nnogroup:x:65534:\n");
    await copyFile(agnhost, join(rootfs, "agnhost"));
    await symlink("agnhost", join(rootfs, "agnhost-2"));
    await copyFile(nnp, join(bin, "nnp"));
    await chmod(join(bin, "nnp"), 0o6755);
  };
}

/** Archives of all of them. @param dir for what they are made of */
export async function conformanceImages(dir: string, made: Made): Promise<string[]> {
  const archives: string[] = [];
  for (const [index, [name, config]] of Object.entries(IMAGES).entries()) {
    const source = await umociImage(join(dir, String(index)), [userland(made)], config);
    const path = join(dir, `${index}.tar`);
    await tool("skopeo", "copy", source, `docker-archive:${path}:${name}`);
    archives.push(path);
  }
  return archives;
}
