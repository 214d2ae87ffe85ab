/** Images that other people's tools make: umoci's layouts, skopeo's archives, and a slow registry. */
import { createReadStream } from "node:fs";
import { copyFile, mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { runOk } from "../../src/util/run.ts";

/** A program of the test machine; its failure is the test's. */
export async function tool(file: string, ...args: string[]): Promise<string> {
  return await runOk(file, args, "ERR_TEST_TOOL", { timeoutMs: 300_000 });
}

/** One layer of an image: changes to the root file system, made by hand in a directory. */
export type LayerStep = (rootfs: string) => Promise<void>;

/** What the image's configuration says. */
export interface ConfigFlags {
  user?: string;
  workdir?: string;
  entrypoint?: string[];
  cmd?: string[];
  env?: string[];
  volumes?: string[];
}

/** Make an OCI layout with umoci, one layer a step. @returns `oci:DIR:latest` */
export async function umociImage(
  dir: string,
  steps: readonly LayerStep[],
  config: ConfigFlags = {},
): Promise<string> {
  const layout = join(dir, "layout");
  const image = `${layout}:latest`;
  await mkdir(dir, { recursive: true });
  await tool("umoci", "init", "--layout", layout);
  await tool("umoci", "new", "--image", image);
  for (const [index, step] of steps.entries()) {
    const bundle = join(dir, `bundle-${index}`);
    await tool("umoci", "unpack", "--image", image, bundle);
    await step(join(bundle, "rootfs"));
    await tool("umoci", "repack", "--image", image, bundle);
    await rm(bundle, { recursive: true, force: true });
  }
  const flags = [
    ...(config.user === undefined ? [] : ["--config.user", config.user]),
    ...(config.workdir === undefined ? [] : ["--config.workingdir", config.workdir]),
    ...(config.entrypoint ?? []).flatMap((word) => ["--config.entrypoint", word]),
    ...(config.cmd ?? []).flatMap((word) => ["--config.cmd", word]),
    ...(config.volumes ?? []).flatMap((path) => ["--config.volume", path]),
    ...(config.env ?? []).flatMap((entry) => ["--config.env", entry]),
  ];
  if (flags.length > 0) await tool("umoci", "config", "--image", image, ...flags);
  return `oci:${image}`;
}

/** A small userland: busybox and nothing else. */
export const busyboxLayer: LayerStep = async (rootfs) => {
  await mkdir(join(rootfs, "bin"), { recursive: true });
  await copyFile("/bin/busybox", join(rootfs, "bin/busybox"));
  for (const name of ["sh", "ls", "cat", "id", "pwd", "env", "echo", "find", "stat", "sleep"]) {
    await symlink("busybox", join(rootfs, "bin", name));
  }
};

/** A registry on loopback that serves one busybox image, slowly when asked. */
export async function registryWithImage(): Promise<{
  image: string;
  slow(on: boolean): void;
  close(): Promise<void>;
}> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-registry-"));
  await umociImage(dir, [
    busyboxLayer,
    async (rootfs) => {
      // Content that does not compress, so that there is something to be slow with.
      await pipeline(
        createReadStream("/dev/urandom", { end: (24 << 20) - 1 }),
        (await import("node:fs")).createWriteStream(join(rootfs, "blob")),
      );
    },
  ]);
  const layout = join(dir, "layout");
  const index = JSON.parse(await readFile(join(layout, "index.json"), "utf8")) as {
    manifests: { digest: string; mediaType: string }[];
  };
  const manifest = index.manifests[0];
  if (manifest === undefined) throw new Error("umoci made no manifest");
  let isSlow = false;
  const server = createServer((request, response) => {
    void (async () => {
      const url = request.url ?? "";
      if (url === "/v2/") return response.end("{}");
      const digest = /\/blobs\/sha256:([0-9a-f]{64})$/.exec(url)?.[1];
      const path =
        digest === undefined && url.includes("/manifests/")
          ? join(layout, "blobs/sha256", manifest.digest.slice(7))
          : join(layout, "blobs/sha256", digest ?? "none");
      const size = await stat(path).then(
        (info) => info.size,
        () => -1,
      );
      if (size < 0) return response.writeHead(404).end();
      response.writeHead(200, {
        "content-length": size,
        "content-type": digest === undefined ? manifest.mediaType : "application/octet-stream",
        "docker-content-digest": digest === undefined ? manifest.digest : `sha256:${digest}`,
      });
      if (request.method === "HEAD") return response.end();
      for await (const chunk of createReadStream(path)) {
        if (isSlow && size > 1 << 20) await sleep(50);
        if (!response.write(chunk)) await new Promise((resolve) => response.once("drain", resolve));
      }
      return response.end();
    })().catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    image: `127.0.0.1:${port}/test/busybox:latest`,
    slow: (on) => (isSlow = on),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
      await rm(dir, { recursive: true, force: true });
    },
  };
}

/** Write a file with its directories. */
export async function put(path: string, text: string, mode = 0o644): Promise<void> {
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, text, { mode });
}
