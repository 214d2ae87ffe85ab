/**
 * Documents as real tools write them: every optional field absent, null, of a wrong kind and with an
 * unknown value. Right is what Docker, containerd and skopeo take.
 */
import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import type { Digest, Platform } from "../../model/image.ts";
import { VmsanError } from "../../model/errors.ts";
import { tokenSchema } from "../../schema/oci.ts";
import { manifestOf } from "./choose.ts";
import type { Choice, FoundManifest } from "./choose.ts";
import { parseConfig, platformOf, toImageConfig } from "./config.ts";
import { MEDIA } from "./media.ts";
import { parsePlatform } from "./platform.ts";

type Json = Record<string, unknown>;

/** A place for documents, as a registry is one. */
class Blobs {
  readonly #bytes = new Map<string, Buffer>();

  put(value: unknown, mediaType: string | undefined): Json & { digest: Digest; size: number } {
    const bytes = Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
    const digest: Digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    this.#bytes.set(digest, bytes);
    return { ...(mediaType === undefined ? {} : { mediaType }), digest, size: bytes.length };
  }

  /** The manifest that a document leads to. */
  async follow(root: Json & { digest: Digest }, platform: Platform): Promise<FoundManifest> {
    const read = async ({ digest }: { digest: Digest }): Promise<Uint8Array> => {
      const bytes = this.#bytes.get(digest);
      if (bytes !== undefined) return bytes;
      throw new VmsanError({ code: "ERR_IMAGE_NOT_FOUND", message: "No", why: "It is not there." });
    };
    const choice: Choice = { platform, what: "x", readDocument: read, readConfig: read };
    const mediaType = typeof root["mediaType"] === "string" ? root["mediaType"] : undefined;
    return manifestOf({ bytes: await read(root), digest: root.digest, mediaType }, choice);
  }

  async config(found: FoundManifest) {
    const bytes = this.#bytes.get(found.manifest.config.digest) ?? Buffer.from("");
    return parseConfig(bytes, found.manifest.layers.length, "x");
  }
}

const AMD64 = parsePlatform("linux/amd64");
const DIFF = `sha256:${"ab".repeat(32)}`;
/** Marks a field to be left out. */
const ABSENT = Symbol("absent");

/** A copy of a document with the value at a path (`config/Env`, `manifests/0/platform`) replaced. */
function changed(document: unknown, path: string, value: unknown): unknown {
  if (path === "") return value;
  const [key = "", ...rest] = path.split("/");
  const inner = rest.join("/");
  if (Array.isArray(document)) {
    return document.map((each, index) =>
      String(index) === key ? changed(each, inner, value) : (each as unknown),
    );
  }
  const copy = { ...(document as Json) };
  if (inner === "" && value === ABSENT) delete copy[key];
  else copy[key] = changed(copy[key] ?? {}, inner, value);
  return copy;
}

const layer = { mediaType: `${MEDIA.layer}+gzip`, digest: DIFF, size: 9 };

/** The documents of one image, with the value at a path of one of them replaced. */
function image(where?: "config" | "manifest" | "index", path = "", value?: unknown) {
  const blobs = new Blobs();
  const at = <T>(document: T, name: string): T =>
    name === where ? (changed(document, path, value) as T) : document;
  const config = {
    architecture: "amd64",
    os: "linux",
    variant: "v1",
    created: "2024-01-01T00:00:00Z",
    author: "a",
    config: {
      Env: ["A=1"],
      Entrypoint: ["/e"],
      Cmd: ["c"],
      WorkingDir: "/w",
      User: "u",
      Volumes: { "/v": {} },
      Labels: { l: "1" },
      ExposedPorts: { "80/tcp": {} },
      StopSignal: "SIGTERM",
      Healthcheck: { Test: ["CMD", "true"], Interval: 1e9 },
    },
    rootfs: { type: "layers", diff_ids: [DIFF] },
    history: [{ created_by: "x" }],
  };
  const manifest = {
    schemaVersion: 2,
    mediaType: MEDIA.manifest,
    config: blobs.put(at(config, "config"), MEDIA.config),
    layers: [layer],
    annotations: { a: "b" },
  };
  const entry = {
    ...blobs.put(at(manifest, "manifest"), MEDIA.manifest),
    platform: { os: "linux", architecture: "amd64", variant: "v1", "os.version": "1" },
    annotations: { a: "b" },
    urls: ["https://x"],
    data: "",
    artifactType: "",
  };
  const index = {
    schemaVersion: 2,
    mediaType: MEDIA.index,
    manifests: [entry],
    annotations: { a: "b" },
  };
  return { blobs, root: blobs.put(at(index, "index"), MEDIA.index) };
}

/** Read an image's documents to the end. */
async function readImage({ blobs, root }: ReturnType<typeof image>, platform = AMD64) {
  const found = await blobs.follow(root, platform);
  const config = await blobs.config(found);
  return { found, config: toImageConfig(config), platform: platformOf(config) };
}

const KINDS: Record<string, unknown> = {
  number: 7,
  text: "x",
  list: [1],
  map: { x: 1 },
  truth: true,
};

/**
 * Every optional field: the kinds of values that are read (besides absent and null), and whether
 * others are refused because something depends on them.
 */
const FIELDS: [
  where: "config" | "manifest" | "index",
  path: string,
  own: string[],
  decides: boolean,
][] = [
  ["config", "variant", ["text"], false],
  ["config", "created", ["text"], false],
  ["config", "author", [], false],
  ["config", "history", [], false],
  ["config", "rootfs/type", [], false],
  ["config", "config/Labels", ["map"], false],
  ["config", "config/ExposedPorts", ["map"], false],
  ["config", "config/StopSignal", ["text"], false],
  ["config", "config/Healthcheck", [], false],
  ["config", "config/OnBuild", [], false],
  ["config", "os.version", [], false],
  ["config", "config/Env", [], true],
  ["config", "config/Entrypoint", ["text"], true],
  ["config", "config/Cmd", ["text"], true],
  ["config", "config/WorkingDir", ["text"], true],
  ["config", "config/User", ["text"], true],
  ["config", "config/Volumes", ["map"], true],
  ["config", "architecture", ["text"], true],
  ["config", "os", ["text"], true],
  ["manifest", "schemaVersion", [], false],
  ["manifest", "mediaType", [], false],
  ["manifest", "annotations", [], false],
  ["manifest", "subject", [], false],
  ["manifest", "artifactType", [], false],
  ["manifest", "config/annotations", [], false],
  ["manifest", "config/urls", [], false],
  ["manifest", "config/platform", [], false],
  ["manifest", "layers/0/annotations", [], false],
  ["manifest", "layers/0/urls", [], false],
  ["manifest", "layers/0/data", [], false],
  ["manifest", "layers/0/platform", [], false],
  ["index", "schemaVersion", [], false],
  ["index", "mediaType", [], false],
  ["index", "annotations", [], false],
  ["index", "subject", [], false],
  ["index", "manifests/0/annotations", [], false],
  ["index", "manifests/0/urls", [], false],
  ["index", "manifests/0/data", [], false],
  ["index", "manifests/0/artifactType", [], false],
  ["index", "manifests/0/platform", [], false],
  ["index", "manifests/0/platform/os", [], false],
  ["index", "manifests/0/platform/architecture", [], false],
  ["index", "manifests/0/platform/variant", [], false],
  ["index", "manifests/0/platform/features", [], false],
  ["index", "manifests/0/platform/os.features", [], false],
  ["index", "manifests/0/mediaType", [], true],
];

test.each(FIELDS)("%s: %s absent, null and of a wrong kind", async (where, path, own, decides) => {
  for (const nothing of [ABSENT, null]) {
    await expect(readImage(image(where, path, nothing)), String(nothing)).resolves.toBeDefined();
  }
  for (const [kind, value] of Object.entries(KINDS)) {
    const read = readImage(image(where, path, value));
    // A text where a platform's name belongs is the name of another platform.
    const other = kind === "text" && /platform\/(os|architecture|variant)$/.test(path);
    if (!decides && !other) {
      await expect(read, kind).resolves.toBeDefined();
      continue;
    }
    if (own.includes(kind)) {
      await expect(read, kind).resolves.toBeDefined();
      continue;
    }
    const refusal = (await read.then(
      () => undefined,
      (error: unknown) => error,
    )) as VmsanError | undefined;
    if (kind === "text" && path === "manifests/0/mediaType") continue;
    expect(refusal?.code, `${path}: ${kind}`).toMatch(/^ERR_IMAGE_(CONFIG|MANIFEST|PLATFORM)$/);
    if (!other) expect(refusal?.why).toContain(path.split("/").at(-1));
  }
});

test("a configuration's values that are no values", async () => {
  const read = async (path: string, value: unknown) =>
    (await readImage(image("config", path, value))).config;
  expect((await read("config/Env", ["A=1", null, "B=2"])).env).toEqual(["A=1", "B=2"]);
  expect((await read("config/Cmd", ["a", null, "b"])).cmd).toEqual(["a", "", "b"]);
  expect((await read("config/Labels", { a: null, b: 5, c: "d" })).labels).toEqual({ c: "d" });
  expect((await read("config/Labels", [])).labels).toEqual({});
  expect((await read("config/Volumes", [])).volumes).toEqual([]);
  expect((await read("config/ExposedPorts", { "80/tcp": null })).exposedPorts).toEqual(["80/tcp"]);
  expect((await read("config", null)).cmd).toEqual([]);
  expect((await read("config", ABSENT)).env).toEqual([]);
  expect((await readImage(image())).config.healthcheck).toEqual({
    test: ["CMD", "true"],
    interval: 1e9,
  });
  const health = async (value: unknown) => (await read("config/Healthcheck", value)).healthcheck;
  expect(await health({ Test: ["NONE"], Retries: 0 })).toEqual({ test: ["NONE"] });
  expect(await health({ Retries: 2 })).toEqual({ test: [], retries: 2 });
  expect(await health({ Test: ["CMD", "x"], Interval: -1, Timeout: "1s" })).toEqual({
    test: ["CMD", "x"],
  });
  expect(await health({})).toBeUndefined();
});

test("an image without layers needs no list of them", async () => {
  const blobs = new Blobs();
  for (const rootfs of [undefined, null, {}, { diff_ids: null }]) {
    for (const layers of [undefined, null, []]) {
      const config = blobs.put({ architecture: "amd64", os: "linux", rootfs }, MEDIA.config);
      const root = blobs.put({ schemaVersion: 2, config, layers }, MEDIA.manifest);
      await expect(readImage({ blobs, root })).resolves.toBeDefined();
    }
  }
  const lying = image("config", "rootfs", null);
  await expect(readImage(lying)).rejects.toThrow(/Cannot use the configuration/);
});

/** Entries that have no place in an index for us, each of which must not matter. */
const NEIGHBOURS: [string, unknown][] = [
  ["null", null],
  ["a number", 5],
  ["nothing", {}],
  ["a sha512 digest", { mediaType: MEDIA.manifest, digest: `sha512:${"ab".repeat(64)}`, size: 5 }],
  ["no digest", { mediaType: MEDIA.manifest, size: 5 }],
  ["a size that is none", { mediaType: MEDIA.manifest, digest: DIFF, size: "5" }],
  [
    "an artifact that is not there",
    { mediaType: "application/x", digest: DIFF, size: 5, platform: null },
  ],
  [
    "an attestation",
    {
      mediaType: MEDIA.manifest,
      digest: DIFF,
      size: 5,
      platform: { os: "unknown", architecture: "unknown" },
    },
  ],
  [
    "a platform of odd kinds",
    { mediaType: MEDIA.manifest, digest: DIFF, size: 5, platform: { os: 5, architecture: [] } },
  ],
];

test.each(NEIGHBOURS)(
  "%s beside an image's entry does not sink the index",
  async (_, neighbour) => {
    for (const platform of [{ os: "linux", architecture: "amd64" }, null]) {
      for (const first of [true, false]) {
        const plain = image("index", "manifests/0/platform", platform);
        const entry = { ...(await plain.blobs.follow(plain.root, AMD64)) };
        const own = { mediaType: MEDIA.manifest, digest: entry.digest, size: entry.size, platform };
        const manifests = first ? [neighbour, own] : [own, neighbour];
        const root = plain.blobs.put({ schemaVersion: 2, manifests }, MEDIA.index);
        expect((await readImage({ blobs: plain.blobs, root })).found.digest).toBe(entry.digest);
      }
    }
  },
);

test("of entries without a platform the one whose configuration fits", async () => {
  const blobs = new Blobs();
  const make = (architecture: string) =>
    blobs.put(
      {
        schemaVersion: 2,
        config: blobs.put({ architecture, os: "linux", rootfs: {} }, MEDIA.config),
        layers: [],
      },
      MEDIA.manifest,
    );
  const [arm, intel] = [make("aarch64"), make("x86_64")];
  const attestation = { ...make("unknown"), platform: { os: "unknown", architecture: "unknown" } };
  const root = blobs.put({ schemaVersion: 2, manifests: [attestation, arm, intel] }, MEDIA.index);
  expect((await blobs.follow(root, AMD64)).digest).toBe(intel.digest);
  expect((await blobs.follow(root, parsePlatform("linux/arm64"))).digest).toBe(arm.digest);
  await expect(blobs.follow(root, parsePlatform("linux/s390x"))).rejects.toThrow(
    expect.objectContaining({
      code: "ERR_IMAGE_PLATFORM",
      why: expect.stringContaining("linux/arm64, linux/amd64") as string,
    }) as Error,
  );
  // An index within an index, as builders write layouts, names no platform either.
  const outer = blobs.put({ schemaVersion: 2, manifests: [root] }, MEDIA.index);
  expect((await blobs.follow(outer, AMD64)).digest).toBe(intel.digest);
  const odd = blobs.put({ schemaVersion: 2, manifests: [null, { digest: "x" }] }, MEDIA.index);
  await expect(blobs.follow(odd, AMD64)).rejects.toThrow(
    expect.objectContaining({ why: expect.stringContaining("1: digest") as string }) as Error,
  );
});

test.each([
  ["linux/x86_64", "linux/amd64"],
  ["linux/x86-64", "linux/amd64"],
  ["Linux/AMD64", "linux/amd64"],
  ["linux/amd64/v1", "linux/amd64"],
  ["linux/aarch64", "linux/arm64/v8"],
  ["linux/arm64/8", "linux/arm64"],
  ["linux/armhf", "linux/arm/v7"],
  ["linux/arm/7", "linux/arm"],
  ["linux/i686", "linux/386"],
  ["linux/ppc64el", "linux/ppc64le"],
])("%s is %s, wherever it stands", async (one, other) => {
  for (const [wanted, named] of [
    [one, other],
    [other, one],
    [one, one],
  ] as const) {
    const [os, architecture, variant] = named.split("/");
    const said = { os, architecture, ...(variant === undefined ? {} : { variant }) };
    const declared = image("index", "manifests/0/platform", said);
    await expect(
      declared.blobs.follow(declared.root, parsePlatform(wanted)),
    ).resolves.toBeDefined();
  }
  const [, architecture, variant] = one.split("/");
  const configured = image("config", "architecture", architecture);
  if (variant !== undefined) return;
  expect((await readImage(configured)).platform.architecture).toBe(
    parsePlatform(other).architecture,
  );
});

/** The manifest of an image whose documents have these media types. */
async function typed(types: {
  config?: unknown;
  layer?: unknown;
  inner?: unknown;
  outer?: string;
}) {
  const blobs = new Blobs();
  const config = blobs.put(
    { architecture: "amd64", os: "linux", rootfs: { diff_ids: [DIFF] } },
    "",
  );
  const manifest = {
    schemaVersion: 2,
    ...("inner" in types ? { mediaType: types.inner } : {}),
    config: { ...config, mediaType: "config" in types ? types.config : MEDIA.config },
    layers: [{ ...layer, mediaType: "layer" in types ? types.layer : layer.mediaType }],
  };
  return blobs.follow(blobs.put(manifest, types.outer), AMD64);
}

const refused = (code: string, why?: RegExp): Error =>
  expect.objectContaining({
    code,
    ...(why === undefined ? {} : { why: expect.stringMatching(why) as string }),
  }) as Error;

test.each([
  "application/vnd.oci.image.layer.v1.tar",
  "application/vnd.oci.image.layer.v1.tar+zstd",
  "application/vnd.oci.image.layer.nondistributable.v1.tar",
  "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
  "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
  "application/vnd.docker.image.rootfs.diff.tar",
  "application/vnd.docker.image.rootfs.diff.tar.zstd",
  "application/vnd.docker.container.image.rootfs.diff+x-gtar",
  "application/vnd.oci.image.layer.v1.tar+gzip; charset=utf-8",
  "Application/Vnd.OCI.Image.Layer.V1.Tar+Gzip",
  "application/x-tar",
  "application/octet-stream",
  "",
  null,
  undefined,
])("a layer of the type %s is a layer", async (type) => {
  await expect(typed({ layer: type })).resolves.toBeDefined();
});

test.each([
  ["layer", "application/x-cake", /unknown media type/],
  ["layer", "application/vnd.in-toto+json", /unknown media type/],
  ["layer", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", /encrypted/],
  ["config", "application/vnd.cncf.helm.config.v1+json", /artifact/],
  ["config", "application/vnd.docker.plugin.v1+json", /artifact/],
  ["config", "application/vnd.oci.empty.v1+json", /artifact/],
])("a %s of the type %s is none", async (part, type, why) => {
  await expect(typed({ [part]: type })).rejects.toThrow(refused("ERR_IMAGE_MEDIA_TYPE", why));
});

test("a configuration of no type in particular is one", async () => {
  for (const config of [MEDIA.dockerConfig, "application/octet-stream", "", null, undefined]) {
    await expect(typed({ config })).resolves.toBeDefined();
  }
});

test("documents are known by their own type, the announced one, or their parts", async () => {
  for (const outer of [
    MEDIA.manifest,
    MEDIA.dockerManifest,
    "application/json",
    "text/plain",
    undefined,
  ]) {
    for (const inner of [
      MEDIA.manifest,
      MEDIA.dockerManifest,
      "application/x-other",
      "",
      null,
      5,
    ]) {
      const found = await typed({ inner, ...(outer === undefined ? {} : { outer }) });
      expect([MEDIA.manifest, MEDIA.dockerManifest]).toContain(found.mediaType);
    }
  }
});

test("what could be read in two ways, or in none, is refused", async () => {
  const blobs = new Blobs();
  const item = { mediaType: MEDIA.config, digest: DIFF, size: 1 };
  const manifest = { schemaVersion: 2, config: item, layers: [] as unknown[] };
  const cases: [unknown, string | undefined][] = [
    [{ ...manifest, mediaType: MEDIA.manifest }, MEDIA.index],
    [{ ...manifest, manifests: [item] }, MEDIA.manifest],
    [{ schemaVersion: 2, manifests: [], layers: [] }, MEDIA.index],
    [{ schemaVersion: 1, fsLayers: [], signatures: [] }, undefined],
    [{ schemaVersion: 1, fsLayers: [], mediaType: `${MEDIA.dockerManifest}x` }, "text/plain"],
    [
      { schemaVersion: 2, blobs: [], mediaType: "application/vnd.oci.artifact.manifest.v1+json" },
      undefined,
    ],
    [[], undefined],
    [null, undefined],
    ["5", undefined],
  ];
  for (const [document, outer] of cases) {
    await expect(
      blobs.follow(blobs.put(document, outer), AMD64),
      JSON.stringify(document),
    ).rejects.toThrow(refused("ERR_IMAGE_MEDIA_TYPE"));
  }
  let nested = blobs.put({ schemaVersion: 2, manifests: [] }, MEDIA.index);
  for (let depth = 0; depth < 9; depth += 1) {
    nested = blobs.put({ schemaVersion: 2, manifests: [nested] }, MEDIA.index);
  }
  await expect(blobs.follow(nested, AMD64)).rejects.toThrow(/Cannot use/);
});

test.each([
  [{ token: "T" }, "T"],
  [{ access_token: "T" }, "T"],
  [{ token: null, access_token: "T" }, "T"],
  [{ token: "", access_token: "T" }, "T"],
  [{ token: 5, access_token: "T" }, "T"],
  [{ token: "T", access_token: null }, "T"],
  [{ token: "T", expires_in: "300", issued_at: 5, refresh_token: null }, "T"],
  [{ token: null, access_token: null }, undefined],
  [{ token: "" }, undefined],
  [{}, undefined],
  [[], undefined],
  [null, undefined],
])("the token answer %j", (answer, token) => {
  expect(tokenSchema.safeParse(answer).data).toBe(token);
});

test("a configuration that every VM would repeat in full is bounded", () => {
  const of = (size: number): Buffer =>
    Buffer.from(
      JSON.stringify({
        architecture: "amd64",
        os: "linux",
        config: { Labels: { long: "x".repeat(size) } },
        rootfs: { type: "layers", diff_ids: [] },
      }),
    );
  expect(parseConfig(of(500_000), 0, "x").config?.Labels?.["long"]?.length).toBe(500_000);
  expect(() => parseConfig(of(2_000_000), 0, "x")).toThrow(
    expect.objectContaining({ code: "ERR_IMAGE_CONFIG" }),
  );
});
