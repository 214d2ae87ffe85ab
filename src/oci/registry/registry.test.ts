/** Pulls from Debian's docker-registry: the same blobs as skopeo copies, whatever pushed them. */
import { execFile, execFileSync, spawn } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasTool, startRegistry } from "../../../test/registry/docker-registry.ts";
import type { TestRegistry } from "../../../test/registry/docker-registry.ts";
import { makeImage, makeIndex, noise, tarOf, writeLayout } from "../../../test/registry/fixture.ts";
import type { FixtureImage } from "../../../test/registry/fixture.ts";
import type { Image } from "../../model/image.ts";
import { openStore, parseImageSource, parsePlatform, resolveImage } from "../images.ts";
import type { ResolveOptions } from "../images.ts";
import { login, logout } from "./login.ts";
import { findImage } from "../store/manage.ts";
import { verifyDiffIds, verifyStore } from "../store/testing.ts";
import type { ContentStore } from "../store/store.ts";

const skopeo = promisify(execFile);
const tools = ["docker-registry", "skopeo", "htpasswd", "openssl"].every(hasTool);
const root = mkdtempSync(join(tmpdir(), "vmsan-pull-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

/** Empty archives: 1024 zero bytes, and no bytes at all. */
const emptyTar = Buffer.alloc(1024);

const fixtures: Record<string, FixtureImage> = {
  gzip: makeImage({ layers: [tarOf("a", noise(300_000, 1)), tarOf("b", noise(10_000, 2))] }),
  zstd: makeImage({ layers: [tarOf("a", noise(300_000, 3))], compression: "zstd" }),
  plain: makeImage({ layers: [tarOf("a", noise(30_000, 4))], compression: "none" }),
  empty: makeImage({ layers: [tarOf("a", noise(100, 5)), emptyTar, Buffer.alloc(0)] }),
  many: makeImage({
    layers: Array.from({ length: 30 }, (_, index) =>
      tarOf(`f${index}`, noise(20_000, 100 + index)),
    ),
  }),
  arm: makeImage({ layers: [tarOf("arm", noise(5000, 6))], architecture: "arm64" }),
};

/** A store of its own. */
async function freshStore(): ReturnType<typeof openStore> {
  return openStore(await mkdtemp(join(root, "store-")));
}

/** Copy with skopeo, unchanged, and compare every blob with the pulled ones. */
async function expectLikeSkopeo(
  pulled: Image,
  from: string,
  flags: string[],
  store: ContentStore,
): Promise<void> {
  const dir = await mkdtemp(join(root, "skopeo-"));
  await skopeo("skopeo", ["copy", "-q", ...flags, `docker://${from}`, `dir:${dir}`]);
  const paths = pulled.layers.map(({ digest, path }) => ({ digest, path }));
  paths.push({ digest: pulled.configDigest, path: store.blobPath(pulled.configDigest) });
  for (const { digest, path } of paths) {
    expect(readFileSync(path).equals(readFileSync(join(dir, digest.slice(7))))).toBe(true);
  }
  const manifest = readFileSync(join(dir, "manifest.json"));
  expect(readFileSync(store.blobPath(pulled.digest)).equals(manifest)).toBe(true);
}

describe.skipIf(!tools).each([
  { name: "plain", tls: false, auth: false },
  { name: "with htpasswd", tls: false, auth: true },
  { name: "with htpasswd and TLS by a private authority", tls: true, auth: true },
])("docker-registry $name", ({ tls, auth }) => {
  const user = { name: "anna", password: "geheim:Wort" };
  let registry: TestRegistry;
  let flags: { src: string[]; dest: string[] };
  let registryOptions: NonNullable<ResolveOptions["registry"]>;

  beforeAll(async () => {
    registry = await startRegistry({ tls, ...(auth ? { user } : {}) });
    const certs = join(root, `certs-${tls}-${auth}`);
    mkdirSync(join(certs, registry.host), { recursive: true });
    if (registry.caFile !== undefined) {
      writeFileSync(join(certs, registry.host, "ca.crt"), readFileSync(registry.caFile));
    }
    const flagsFor = (side: string): string[] => [
      ...(tls
        ? [`--${side}-cert-dir=${join(certs, registry.host)}`]
        : [`--${side}-tls-verify=false`]),
      ...(auth ? [`--${side}-creds=${user.name}:${user.password}`] : []),
    ];
    flags = { src: flagsFor("src"), dest: flagsFor("dest") };
    registryOptions = { certDirs: [certs], env: { HOME: join(root, `home-${tls}-${auth}`) } };
    const layout = join(root, `layout-${tls}-${auth}`);
    const { gzip, arm } = fixtures;
    if (gzip === undefined || arm === undefined) throw new Error("no fixtures");
    const index = makeIndex([
      { image: arm, architecture: "arm64" },
      { image: gzip, architecture: "amd64" },
    ]);
    writeLayout(layout, [
      { top: index, tag: "index", images: [gzip, arm] },
      ...Object.entries(fixtures).map(([tag, image]) => ({
        top: image.manifest,
        tag,
        images: [image],
      })),
    ]);
    for (const tag of ["index", ...Object.keys(fixtures)]) {
      const to = `docker://${registry.host}/test/image:${tag}`;
      await skopeo("skopeo", [
        "copy",
        "-q",
        "--all",
        "--preserve-digests",
        ...flags.dest,
        `oci:${layout}:${tag}`,
        to,
      ]);
    }
    if (auth) {
      const registries = { mirrors: {}, insecure: [] };
      await login(registry.host, {
        username: user.name,
        password: user.password,
        registries,
        ...registryOptions,
      });
    }
  });
  afterAll(async () => registry.stop());

  test.each(Object.keys(fixtures))("%s: the same blobs as skopeo", async (tag) => {
    const store = await freshStore();
    const reference = `${registry.host}/test/image:${tag}`;
    const platform = parsePlatform(tag === "arm" ? "linux/arm64" : "linux/amd64");
    const pulled = await resolveImage(parseImageSource(reference), {
      store,
      platform,
      registry: registryOptions,
    });
    expect(pulled.layers.map((layer) => layer.digest)).toEqual(
      fixtures[tag]?.layers.map((layer) => layer.digest),
    );
    await expectLikeSkopeo(
      pulled,
      reference,
      [...flags.src, `--override-arch=${platform.architecture}`],
      store,
    );
    await verifyDiffIds(pulled);
    expect(await verifyStore(store)).toEqual([]);
  });

  test("an index: the platform's image, also by the index's digest, without network then", async () => {
    const store = await freshStore();
    const source = parseImageSource(`${registry.host}/test/image:index`);
    const options = { store, registry: registryOptions };
    const [amd, arm] = await Promise.all(
      ["amd64", "arm64"].map(async (architecture) =>
        resolveImage(source, { ...options, platform: { os: "linux", architecture } }),
      ),
    );
    expect(amd?.digest).toBe(fixtures["gzip"]?.manifest.digest);
    expect(arm?.digest).toBe(fixtures["arm"]?.manifest.digest);
    const { digest } = (await findImage(store, amd?.name ?? "")).descriptor;
    const { sourceDigest } = await findImage(store, digest);
    expect(sourceDigest).not.toBe(digest);
    for (const known of [digest, sourceDigest]) {
      const byDigest = parseImageSource(`${registry.host}/test/image@${known}`);
      expect((await resolveImage(byDigest, { store, pull: "never" })).digest).toBe(digest);
    }
    await expect(
      resolveImage(source, { ...options, platform: { os: "linux", architecture: "s390x" } }),
    ).rejects.toMatchObject({
      code: "ERR_IMAGE_PLATFORM",
      why: expect.stringMatching(/arm64/) as string,
    });
  });

  test.runIf(auth)("without credentials it is refused, and no error tells a secret", async () => {
    const store = await freshStore();
    const source = parseImageSource(`${registry.host}/test/image:gzip`);
    const nobody = { ...registryOptions, env: { HOME: join(root, "nobody") } };
    const refused = resolveImage(source, { store, registry: nobody });
    await expect(refused).rejects.toMatchObject({ code: "ERR_IMAGE_UNAUTHORIZED" });
    const wrong = login(registry.host, { username: "anna", password: "falsch", ...nobody });
    const error: unknown = await wrong.catch((reason: unknown) => reason);
    expect(JSON.stringify(error)).toContain("ERR_IMAGE_UNAUTHORIZED");
    expect(JSON.stringify(error)).not.toMatch(/falsch|geheim/);
  });

  test.runIf(tls)(
    "without the authority it is refused; --ca-file and insecure let it in",
    async () => {
      const source = parseImageSource(`${registry.host}/test/image:plain`);
      const bare = { ...registryOptions, certDirs: [] };
      await expect(
        resolveImage(source, { store: await freshStore(), registry: bare }),
      ).rejects.toMatchObject({ code: "ERR_IMAGE_TLS" });
      const { caFile } = registry;
      if (caFile === undefined) throw new Error("no authority");
      await resolveImage(source, { store: await freshStore(), registry: { ...bare, caFile } });
      const registries = { mirrors: {}, insecure: [registry.host] };
      await resolveImage(source, { store: await freshStore(), registry: { ...bare, registries } });
    },
  );

  test.runIf(auth)("login keeps the file private and logout empties it", async () => {
    const env = { HOME: await mkdtemp(join(root, "home-")) };
    const account = { username: user.name, password: user.password };
    const { where } = await login(registry.host, { ...registryOptions, ...account, env });
    expect(statSync(where).mode & 0o777).toBe(0o600);
    expect(readFileSync(where, "utf8")).not.toContain(user.password);
    const store = await freshStore();
    const source = parseImageSource(`${registry.host}/test/image:plain`);
    await resolveImage(source, { store, registry: { ...registryOptions, env } });
    expect(await logout(registry.host, env)).toBe(true);
    expect(await logout(registry.host, env)).toBe(false);
    expect(readFileSync(where, "utf8")).not.toContain(registry.host);
  });
});

describe.skipIf(!tools)("two processes", () => {
  let registry: TestRegistry;
  const image = makeImage({
    layers: Array.from({ length: 4 }, (_, index) =>
      tarOf(`f${index}`, noise(4_000_000, 200 + index)),
    ),
  });
  const child = join(import.meta.dirname, "../../../test/registry/pull-once.ts");
  let reference: string;

  beforeAll(async () => {
    registry = await startRegistry();
    const layout = join(root, "layout-kill");
    writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
    reference = `${registry.host}/kill/image:x`;
    const flags = ["copy", "-q", "--dest-tls-verify=false"];
    execFileSync("skopeo", [...flags, `oci:${layout}:x`, `docker://${reference}`]);
  });
  afterAll(async () => registry.stop());

  test("SIGKILL at random moments leaves a store that verifies, and the next pull goes on", async () => {
    const store = await freshStore();
    for (let round = 0; round < 50; round += 1) {
      const killed = spawn(process.execPath, [child, store.dir, reference], {
        stdio: ["ignore", "pipe", "ignore"],
      });
      const gone = new Promise((resolve) => killed.once("close", resolve));
      // It says when the pull begins: the moment is random within the pull, not the start-up.
      await new Promise((resolve) => {
        killed.stdout.once("data", resolve);
        killed.once("close", resolve);
      });
      await new Promise((resolve) => setTimeout(resolve, Math.random() * 60));
      killed.kill("SIGKILL");
      await gone;
      expect(await verifyStore(store)).toEqual([]);
    }
    const pulled = await resolveImage(parseImageSource(reference), { store });
    await verifyDiffIds(pulled);
    expect(readdirSync(join(store.dir, "partial"))).toEqual([]);
  }, 240_000);
});

describe.skipIf(!tools)("through a proxy", () => {
  test("TLS by CONNECT, with the proxy's own password, and the registry's name is still checked", async () => {
    const registry = await startRegistry({ tls: true });
    const port = Number(registry.host.split(":")[1]);
    const asked: { authority: string; authorization: string | undefined }[] = [];
    const proxy = createServer();
    proxy.on("connect", (request, client, head) => {
      const authorization = request.headers["proxy-authorization"];
      asked.push({ authority: request.url ?? "", authorization });
      if (authorization === undefined) {
        client.end("HTTP/1.1 407 Who are you\r\n\r\n");
        return;
      }
      // Whatever is asked for, the registry of this test answers.
      const server = connect(port, "127.0.0.1", () => {
        client.write("HTTP/1.1 200 OK\r\n\r\n");
        server.write(head);
        server.pipe(client).pipe(server);
      });
      server.on("error", () => client.destroy());
      client.on("error", () => server.destroy());
    });
    await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
    try {
      const { caFile } = registry;
      if (caFile === undefined) throw new Error("no authority");
      const layout = join(root, "layout-proxy");
      const image = makeImage({ layers: [tarOf("a", noise(900_000, 11))] });
      writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
      const to = `docker://${registry.host}/p/q:x`;
      await skopeo("skopeo", ["copy", "-q", "--dest-tls-verify=false", `oci:${layout}:x`, to]);
      const { port: at } = proxy.address() as AddressInfo;
      const HTTPS_PROXY = `http://me:pass@127.0.0.1:${at}`;
      // The certificate is for localhost, so the proxy is asked for a name that ends so.
      const pull = async (env: NodeJS.ProcessEnv, store: ContentStore): Promise<Image> =>
        resolveImage(parseImageSource("registry.test:5000/p/q:x"), {
          store,
          registry: { caFile, env, retry: { budget: 0, delayMs: 1, longestWaitMs: 1 } },
        });
      const store = await freshStore();
      // A name that the certificate does not have is refused, also in a tunnel.
      const refused = {
        code: "ERR_IMAGE_TLS",
        why: expect.stringMatching(/registry\.test/) as string,
      };
      await expect(pull({ HTTPS_PROXY }, store)).rejects.toMatchObject(refused);
      const insecure = { caFile, env: { HTTPS_PROXY }, insecure: () => true };
      const source = parseImageSource("registry.test:5000/p/q:x");
      const pulled = await resolveImage(source, { store, registry: insecure });
      expect(
        readFileSync(pulled.layers[0]?.path ?? "").equals(
          image.layers[0]?.bytes ?? Buffer.alloc(0),
        ),
      ).toBe(true);
      expect(asked[0]).toEqual({
        authority: "registry.test:5000",
        authorization: `Basic ${Buffer.from("me:pass").toString("base64")}`,
      });
      const nameless = await pull(
        { HTTPS_PROXY: `http://127.0.0.1:${at}` },
        await freshStore(),
      ).catch((error: unknown) => error);
      expect(nameless).toMatchObject({ code: "ERR_IMAGE_PROXY" });
    } finally {
      proxy.closeAllConnections();
      proxy.close();
      await registry.stop();
    }
  });
});

const canMount = ((): boolean => {
  try {
    execFileSync("unshare", ["-m", "mount", "-t", "tmpfs", "none", root], { stdio: "ignore" });
    return true;
  } catch {
    // Not root, or a container without the right to mount.
    console.warn("skipped: a full disk cannot be staged without the right to mount");
    return false;
  }
})();

describe.skipIf(!tools || !canMount)("a full disk", () => {
  test("ends the pull with a coded error", async () => {
    const registry = await startRegistry();
    try {
      const layout = join(root, "layout-full");
      const image = makeImage({ layers: [tarOf("a", noise(6_000_000, 12))] });
      writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
      const reference = `${registry.host}/full/q:x`;
      await skopeo("skopeo", [
        "copy",
        "-q",
        "--dest-tls-verify=false",
        `oci:${layout}:x`,
        `docker://${reference}`,
      ]);
      const dir = await mkdtemp(join(root, "small-"));
      const program = join(import.meta.dirname, "../../../test/registry/pull-once.ts");
      const script = 'mount -t tmpfs -o size=2m none "$1" && exec "$2" "$3" "$1" "$4"';
      const args = ["-m", "sh", "-c", script, "sh", dir, process.execPath, program, reference];
      const failed = await skopeo("unshare", args).catch((error: unknown) => error);
      expect(String((failed as { stderr?: string }).stderr)).toContain("ERR_IMAGE_STORE_FULL");
    } finally {
      await registry.stop();
    }
  });
});

describe.skipIf(!tools || !hasTool("buildah") || process.getuid?.() !== 0)("buildah", () => {
  test("an image that buildah made and pushed", async () => {
    const registry = await startRegistry();
    try {
      const storage = join(root, "buildah");
      const buildah = (...args: string[]): string =>
        execFileSync(
          "buildah",
          [
            "--root",
            `${storage}/root`,
            "--runroot",
            `${storage}/run`,
            "--storage-driver",
            "vfs",
            ...args,
          ],
          { encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] },
        ).trim();
      const container = buildah("from", "scratch");
      const file = join(root, "content");
      writeFileSync(file, noise(100_000, 9));
      chmodSync(file, 0o4755);
      buildah("copy", container, file, "/usr/bin/x");
      buildah(
        "config",
        "--entrypoint",
        '["/usr/bin/x"]',
        "--user",
        "7:8",
        "--workingdir",
        "/w",
        container,
      );
      for (const format of ["oci", "docker"]) {
        const reference = `${registry.host}/buildah/${format}:1`;
        buildah(
          "commit",
          "-q",
          "--format",
          format,
          "--tls-verify=false",
          container,
          `docker://${reference}`,
        );
        const store = await freshStore();
        const pulled = await resolveImage(parseImageSource(reference), { store });
        expect(pulled.config).toMatchObject({
          entrypoint: ["/usr/bin/x"],
          user: "7:8",
          workingDir: "/w",
        });
        await verifyDiffIds(pulled);
        await expectLikeSkopeo(pulled, reference, ["--src-tls-verify=false"], store);
      }
      buildah("rm", container);
    } finally {
      await registry.stop();
    }
  });
});
