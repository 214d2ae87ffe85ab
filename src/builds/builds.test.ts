/** What a build is told and what is made of what it says, without a VM. */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { request } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { makeImage, noise, tarOf, writeLayout } from "../../test/registry/fixture.ts";
import type { BuildRequest } from "../model/api/builds.ts";
import { VmsanError } from "../model/errors.ts";
import type { ProgressEvent } from "../model/progress.ts";
import { openStore, parsePlatform, resolveImage, takeLease } from "../oci/images.ts";
import type { ContentStore, Lease } from "../oci/images.ts";
import { setName } from "../oci/store/names.ts";
import { digestOf } from "../oci/store/store.ts";
import type { Host } from "../sandbox/host.ts";
import { diskSizeFor } from "./builder/builder.ts";
import { hostsIn, registriesConf } from "./registry/hosts.ts";
import { Imports } from "./registry/imports.ts";
import { Had, groupOf } from "./registry/had.ts";
import { findBuilt } from "./registry/known.ts";
import { BuildOutput } from "./output.ts";
import { platformsIn } from "./platforms.ts";
import { BuildRegistry } from "./registry/registry.ts";
import type { BuildAccess } from "./registry/registry.ts";
import { Results } from "./registry/results.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-builds-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

describe("registries that a Dockerfile may name", () => {
  test.each([
    ["FROM ghcr.io/a/b:1", ["ghcr.io"]],
    ["FROM --platform=linux/amd64 my.reg:5000/x AS y", ["my.reg:5000"]],
    ["ARG REG=quay.io\nFROM ${REG}/a", ["quay.io"]],
    ['COPY --from="registry.example.org/t@sha256:00" /a /b', ["registry.example.org"]],
    ["FROM localhost/mine", ["localhost"]],
    ["FROM localhost:5000/mine", ["localhost:5000"]],
    ["FROM node:22", []],
    ["FROM scratch\nCOPY a b", []],
  ])("%s", (text, wanted) => {
    const [first, ...others] = hostsIn([text]);
    expect(first).toBe("docker.io");
    expect(others).toEqual(expect.arrayContaining(wanted));
  });

  test("an argument's value counts, and each host gets a place", () => {
    const hosts = hostsIn(["FROM $R/a", "reg.test:1"]);
    expect(hosts).toEqual(["docker.io", "reg.test:1"]);
    const conf = registriesConf(hosts, "127.0.0.1:5000", "ID");
    expect(conf).toContain('prefix = "reg.test:1"\nlocation = "127.0.0.1:5000/ID/h1"');
  });

  test("a long text takes no time and is bounded", () => {
    const text = `${"a.".repeat(200_000)}\n${"x.y/z ".repeat(10)}${Array.from({ length: 2000 }, (_, i) => `h${i}.io/x`).join(" ")}`;
    const before = performance.now();
    expect(hostsIn([text]).length).toBeLessThanOrEqual(500);
    expect(performance.now() - before).toBeLessThan(20_000);
  });
});

test.each([
  [500, 64],
  [65.4, 32],
  [20, 10],
  [9, 8],
  [0, 8],
])("where %d GiB are free the builder's disk has %d", (free, size) => {
  expect(diskSizeFor(free * 2 ** 30)).toBe(size * 2 ** 30);
});

test.each([
  [["app:1"], undefined, "as docker.io/library/app"],
  [["docker.io/library/app:2", "app"], "/x", "as docker.io/library/app"],
  [["r.test:5/b", "a"], undefined, "as docker.io/library/a r.test:5/b"],
  [[], "/x", "in /x"],
  [[], undefined, undefined],
])("builds as %j in %s belong together as %s", (tags, place, group) => {
  expect(groupOf({ tags, ...(place === undefined ? {} : { place }) })).toBe(group);
});

test("groups of builds are bounded, and none is one of its own", () => {
  const had = new Had();
  const digest = `sha256:${"0".repeat(64)}` as const;
  had.of("first").add(digest);
  had.of(undefined).add(digest);
  expect(had.of(undefined).size).toBe(0);
  for (let i = 0; i < 999; i += 1) had.of(`group ${i}`);
  expect(had.of("first").has(digest)).toBe(true);
  for (let i = 0; i < 1000; i += 1) had.of(`more ${i}`);
  expect(had.of("first").has(digest)).toBe(false);
});

test("digests of a group are bounded, and those of all groups", () => {
  const digest = (number: number) => `sha256:${String(number).padStart(64, "0")}` as const;
  const had = new Had();
  for (let group = 0; group < 20; group += 1) {
    const known = had.of(`group ${group}`);
    for (let i = 0; i < 12_000; i += 1) {
      known.add(digest(i));
      // What is asked for now and then stays.
      if (i % 1000 === 0) expect(known.has(digest(0))).toBe(true);
    }
    expect(known.size).toBe(10_000);
    expect([known.has(digest(1)), known.has(digest(11_999))]).toEqual([false, true]);
  }
  expect(had.of("group 19").size).toBe(10_000);
  expect(had.of("group 11").size).toBe(10_000);
  expect(had.of("group 9").size).toBe(0);
});

describe("output", () => {
  test("becomes lines with the step they belong to", () => {
    const said: ProgressEvent[] = [];
    const output = new BuildOutput((event) => said.push(event));
    output.take("stdout", Buffer.from("STEP 2/3: RUN x\nhal"));
    output.take("stderr", Buffer.from("oops\n"));
    output.take("stdout", Buffer.from("f\r\n"));
    output.end();
    expect(output.step).toBe("STEP 2/3: RUN x");
    expect(said.map(({ message }) => message)).toEqual(["STEP 2/3: RUN x", "oops", "half"]);
    expect(output.tail).toBe("STEP 2/3: RUN x\noops\nhalf");
  });

  test("a flood is cut, and its end is kept", () => {
    let bytes = 0;
    const output = new BuildOutput(({ message }) => {
      bytes += message?.length ?? 0;
    });
    const line = Buffer.from(`${"x".repeat(1023)}\n`.repeat(1024));
    for (let i = 0; i < 40; i += 1) output.take("stdout", line);
    output.take("stdout", Buffer.from("the end\n"));
    output.end();
    expect(bytes).toBeLessThan(18 << 20);
    expect(output.tail.endsWith("the end")).toBe(true);
  });
});

describe("the registry of a build", () => {
  const id = "0".repeat(32);
  const image = makeImage({ layers: [tarOf("a", noise(100_000, 1))] });
  let store: ContentStore;
  let lease: Lease;
  let registry: BuildRegistry;
  let results: Results;
  let before: BuildAccess;
  const asked: string[] = [];

  beforeAll(async () => {
    store = await openStore(await mkdtemp(join(root, "store-")));
    lease = await takeLease(store, "test");
    const layout = join(root, "layout");
    writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
    const host = {
      store,
      resolve: async (text: string) => {
        asked.push(text);
        if (text.includes("nothing")) throw new Error("not there");
        return resolveImage({ kind: "oci", path: layout, tag: "x" }, { store });
      },
    } as unknown as Host;
    const { signal } = new AbortController();
    const work = { signal, progress: () => undefined };
    const imports = new Imports(host, lease, { pull: "missing" }, ["docker.io", "r.test:5"], work);
    registry = new BuildRegistry(store, join(root, "sock"));
    const prefix = `/v2/${id}/result/image`;
    results = new Results(store, lease, imports, prefix, signal, registry.had.of("as r.test/mine"));
    before = { imports, results };
    registry.admit(id, before);
    await registry.open();
    return async () => {
      await registry.close();
      await lease.release();
    };
  });

  /** One request over the socket. */
  const call = async (
    method: string,
    path: string,
    body?: Buffer,
    type?: string,
  ): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; bytes: Buffer }> =>
    new Promise((resolve, reject) => {
      const headers = type === undefined ? {} : { "content-type": type };
      const sent = request({ socketPath: registry.path, method, path, headers }, (reply) => {
        const parts: Buffer[] = [];
        reply.on("data", (part: Buffer) => parts.push(part));
        reply.on("end", () =>
          resolve({
            status: reply.statusCode ?? 0,
            headers: reply.headers,
            bytes: Buffer.concat(parts),
          }),
        );
      });
      sent.on("error", reject);
      sent.end(body);
    });

  test("base images come from the store, with a history that tells of all layers", async () => {
    expect((await call("GET", "/v2/")).status).toBe(200);
    const manifest = await call("GET", `/v2/${id}/h1/lib/x/manifests/7`);
    expect(asked).toEqual(["docker://r.test:5/lib/x:7"]);
    const { config, layers } = JSON.parse(manifest.bytes.toString()) as {
      config: { digest: string };
      layers: { digest: string }[];
    };
    expect(manifest.headers["docker-content-digest"]).toBe(digestOf(manifest.bytes));
    expect(layers[0]?.digest).toBe(image.layers[0]?.digest);
    const settings = await call("GET", `/v2/${id}/h1/lib/x/blobs/${config.digest}`);
    const { history } = JSON.parse(settings.bytes.toString()) as { history: unknown[] };
    expect(history).toHaveLength(1);
    const blob = await call("GET", `/v2/${id}/h1/lib/x/blobs/${layers[0]?.digest}`);
    expect(blob.bytes.equals(image.layers[0]?.bytes ?? Buffer.alloc(0))).toBe(true);
  });

  test("where stages want several platforms, a name is an index of what there is", async () => {
    const arm = makeImage({ layers: [tarOf("arm", noise(1000, 4))], architecture: "arm64" });
    const layout = join(root, "layout-arm");
    writeLayout(layout, [{ top: arm.manifest, tag: "x", images: [arm] }]);
    const { signal } = new AbortController();
    const host = {
      store,
      resolve: async (text: string, { platform }: { platform?: string }) => {
        const isArm = platform === "linux/arm64";
        if (isArm && text.includes("amd-only")) throw new VmsanError(absent);
        const path = isArm ? layout : join(root, "layout");
        const asked = isArm ? { platform: parsePlatform("linux/arm64") } : {};
        return resolveImage({ kind: "oci", path, tag: "x" }, { store, ...asked });
      },
    } as unknown as Host;
    const absent = { code: "ERR_IMAGE_PLATFORM", message: "no", why: "none", fix: "none" } as const;
    const wish = { pull: "missing", platforms: ["linux/amd64", "linux/arm64"] } as const;
    const work = { signal, progress: () => undefined };
    const imports = new Imports(host, lease, wish, ["docker.io"], work);
    const served = await imports.manifest("h0", "lib/both", "1");
    const { manifests } = JSON.parse(served.bytes.toString()) as {
      manifests: { digest: `sha256:${string}`; platform: { architecture: string } }[];
    };
    expect(manifests.map(({ platform }) => platform.architecture)).toEqual(["amd64", "arm64"]);
    for (const { digest } of manifests) {
      expect((await imports.manifest("h0", "lib/both", digest)).digest).toBe(digest);
    }
    const single = await imports.manifest("h0", "lib/amd-only", "1");
    expect(JSON.parse(single.bytes.toString())).toHaveProperty("layers");
  });

  test.each([
    ["FROM x", undefined, ["linux/amd64"]],
    ["FROM x", "linux/arm64", ["linux/arm64"]],
    ["FROM --platform=$BUILDPLATFORM x", "linux/arm64", ["linux/arm64", "linux/amd64"]],
    ["from --platform=linux/arm/v7 x AS a\nFROM y", undefined, ["linux/amd64", "linux/arm/v7"]],
    ["FROM --platform=a/b/c/d x", undefined, ["linux/amd64"]],
  ])("platforms of %j for %s", (dockerfile, platform, wanted) => {
    const given = { dockerfile, ...(platform === undefined ? {} : { platform }) };
    expect(platformsIn(given as BuildRequest)).toEqual(wanted);
  });

  test("nothing is served to who does not know the build, and nothing may be written but the result", async () => {
    const other = "1".repeat(32);
    expect((await call("GET", `/v2/${other}/h0/x/manifests/1`)).status).toBe(404);
    expect((await call("POST", `/v2/${id}/h0/x/blobs/uploads/`)).status).toBe(405);
    const secret = await store.putBytes(Buffer.from("of another image"));
    expect((await call("GET", `/v2/${id}/h0/x/blobs/${secret}`)).status).toBe(404);
    expect((await call("HEAD", `/v2/${id}/result/image/blobs/${secret}`)).status).toBe(404);
    const missing = await call("GET", `/v2/${id}/h0/nothing/manifests/1`);
    expect(missing.status).toBe(403);
    expect(missing.bytes.toString()).toContain("not there");
  });

  test("an image that the store has is known by its configuration, if it is whole", async () => {
    const built = makeImage({ layers: [tarOf("k", noise(20_000, 3))] });
    for (const { bytes } of [built.manifest, built.config]) await store.putBytes(bytes);
    const { digest, size, mediaType } = built.manifest;
    const platform = { os: "linux", architecture: "amd64" };
    const named = { digest: digest as `sha256:${string}`, size, mediaType, platform };
    await setName(store, { name: "known.test/k:1", ...named });
    const id = built.config.digest;
    expect(await findBuilt(store, lease, id)).toBeUndefined();
    for (const { bytes } of built.layers) await store.putBytes(bytes);
    expect(await findBuilt(store, lease, id)).toMatchObject({ digest, size });
    expect(await findBuilt(store, lease, id.slice(7))).toMatchObject({ digest });
    expect(await findBuilt(store, lease, "nothing")).toBeUndefined();
  });

  test("a build that begins one piece after the other without end is stopped", async () => {
    const imports = { blob: () => undefined } as unknown as Imports;
    const { signal } = new AbortController();
    const endless = new Results(store, lease, imports, "/v2/x", signal);
    const ask = async (method: string, name: string): Promise<string> => {
      let where = "";
      const end = (): void => undefined;
      const writeHead = (_: number, { location = "" }: { location?: string }): object => {
        where = location.slice(location.lastIndexOf("/") + 1);
        return { end };
      };
      const [from, to] = [{ method, headers: {} }, { writeHead }] as unknown as [
        IncomingMessage,
        ServerResponse,
      ];
      await endless.handle("uploads", name, new URL("http://x/"), from, to);
      return where;
    };
    const begin = async (): Promise<void> => void (await ask("DELETE", await ask("POST", "")));
    for (let i = 0; i < 1000; i += 1) await begin();
    await expect(
      (async () => {
        for (let i = 0; i < 10_000; i += 1) await begin();
      })(),
    ).rejects.toMatchObject({ code: "ERR_BUILD_RESULT" });
  });

  test("a result is taken blob by blob, verified, and complete or not at all", async () => {
    const result = makeImage({ layers: [tarOf("r", noise(50_000, 2))] });
    const prefix = `/v2/${id}/result/image`;
    const type = result.manifest.mediaType;
    const early = await call("PUT", `${prefix}/manifests/latest`, result.manifest.bytes, type);
    expect(early.status).toBe(403);
    expect(results.manifest).toBeUndefined();
    for (const blob of [result.config, ...result.layers]) {
      const begun = await call("POST", `${prefix}/blobs/uploads/`);
      expect(begun.status).toBe(202);
      const location = String(begun.headers["location"]);
      expect((await call("PATCH", location, blob.bytes)).status).toBe(202);
      expect((await call("PUT", `${location}?digest=sha256:${"0".repeat(64)}`)).status).toBe(400);
      expect((await call("PUT", `${location}?digest=${blob.digest}`)).status).toBe(201);
      expect(statSync(store.blobPath(blob.digest as `sha256:${string}`)).size).toBe(blob.size);
    }
    const put = await call("PUT", `${prefix}/manifests/latest`, result.manifest.bytes, type);
    expect(put.status).toBe(201);
    expect(results.manifest?.digest).toBe(result.manifest.digest);
    expect(results.sent).toMatchObject({ blobs: 2 });
    // The next build asks where this one had its layers, and has them taken over; what is no layer of theirs is not.
    registry.dismiss(id);
    const next = "2".repeat(32);
    const { signal } = new AbortController();
    const work = { signal, progress: () => undefined };
    const imports = new Imports({ store } as unknown as Host, lease, { pull: "missing" }, [], work);
    const admit = (group: string | undefined): Results => {
      const to = `/v2/${next}/result/image`;
      const made = new Results(store, lease, imports, to, signal, registry.had.of(group));
      registry.admit(next, { imports, results: made });
      return made;
    };
    const layer = result.layers[0]?.digest ?? "";
    const taken = `/v2/${next}/result/image/blobs/uploads/?from=${id}/result/image&mount=`;
    const whole = `/v2/${next}/result/image/manifests/latest`;
    // Not by a build of something else, whatever it knows of this one: neither a layer, nor all of it, nor its name.
    for (const group of ["as r.test/other", "in /elsewhere", undefined]) {
      const other = admit(group);
      expect((await call("HEAD", `${prefix}/blobs/${layer}`)).status).toBe(404);
      expect((await call("POST", `${taken}${layer}`)).status).toBe(202);
      const stolen = await call("PUT", whole, result.manifest.bytes, type);
      expect([stolen.status, other.manifest]).toEqual([403, undefined]);
      expect(other.mayName(result.config.digest)).toBe(false);
    }
    const again = admit("as r.test/mine");
    expect(again.mayName(result.config.digest.slice(7))).toBe(true);
    expect(again.mayName("nothing")).toBe(false);
    const known = await call("HEAD", `${prefix}/blobs/${layer}`);
    expect([known.status, known.headers["content-length"]]).toEqual([
      200,
      String(result.layers[0]?.size),
    ]);
    expect((await call("POST", `${taken}${layer}`)).status).toBe(201);
    const secret = await store.putBytes(Buffer.from("of another image"));
    expect((await call("HEAD", `${prefix}/blobs/${secret}`)).status).toBe(404);
    expect((await call("GET", `${prefix}/blobs/${layer}`)).status).toBe(404);
    expect((await call("POST", `${taken}${secret}`)).status).toBe(202);
    // Of a base image, too, that a build has asked for: the builder knows it from builds before.
    const gone = `/v2/${"3".repeat(32)}/h0/x/blobs/${image.layers[0]?.digest}`;
    registry.had.clear();
    expect((await call("HEAD", gone)).status).toBe(404);
    registry.admit(id, before);
    expect((await call("HEAD", gone)).status).toBe(200);
    // A layer of the base is taken over without being sent.
    const base = image.layers[0]?.digest ?? "";
    const mounted = await call("POST", `${prefix}/blobs/uploads/?mount=${base}&from=x`);
    expect(mounted.status).toBe(201);
    expect(readFileSync(store.blobPath(base as `sha256:${string}`)).length).toBe(
      image.layers[0]?.size,
    );
  });
});
