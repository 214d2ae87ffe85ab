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
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasTool, startRegistry } from "../../test/registry/docker-registry.ts";
import type { TestRegistry } from "../../test/registry/docker-registry.ts";
import { makeImage, makeIndex, noise, tarOf, writeLayout } from "../../test/registry/fixture.ts";
import type { FixtureImage } from "../../test/registry/fixture.ts";
import type { Image } from "../model/image.ts";
import { openStore, parseImageSource, parsePlatform, resolveImage } from "./images.ts";
import type { ResolveOptions } from "./images.ts";
import { login, logout } from "./login.ts";
import { verifyStore } from "./manage.ts";
import { verifyDiffIds } from "./ingest.ts";
import type { ContentStore } from "./store.ts";

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
    await verifyDiffIds(pulled, store);
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
  const child = join(import.meta.dirname, "../../test/registry/pull-once.ts");
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
    await verifyDiffIds(pulled, store);
    expect(readdirSync(join(store.dir, "partial"))).toEqual([]);
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
        await verifyDiffIds(pulled, store);
        await expectLikeSkopeo(pulled, reference, ["--src-tls-verify=false"], store);
      }
      buildah("rm", container);
    } finally {
      await registry.stop();
    }
  });
});
