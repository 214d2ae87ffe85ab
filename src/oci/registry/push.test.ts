/** Pushes: to Debian's docker-registry, judged by skopeo; and to one that does wrong. */
import { execFile } from "node:child_process";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeEach, describe, expect, test } from "vitest";
import { hasTool, startRegistry } from "../../../test/registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../../../test/registry/fixture.ts";
import { startReceiver } from "../../../test/registry/receiver.ts";
import type { Receiver } from "../../../test/registry/receiver.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import { openStore, parseImageSource, resolveImage } from "../images.ts";
import { tagImage } from "../store/manage.ts";
import { setName } from "../store/names.ts";
import type { ContentStore } from "../store/store.ts";
import type { RegistryOptions } from "./pull.ts";
import { pushImage } from "./push.ts";
import type { Pushed } from "./push.ts";

const run = promisify(execFile);
const root = await mkdtemp(join(tmpdir(), "vmsan-push-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const image = makeImage({
  layers: [tarOf("a", noise(3_000_000, 1)), tarOf("b", noise(1000, 2)), Buffer.alloc(1024)],
});
const large = image.layers[0];
if (large === undefined) throw new Error("no layer");

/** A store that has the image under a name. */
async function storeWith(name: string): Promise<ContentStore> {
  const store = await openStore(await mkdtemp(join(root, "store-")));
  for (const blob of [image.manifest, image.config, ...image.layers]) {
    await store.putBytes(blob.bytes);
  }
  const platform = { os: "linux", architecture: "amd64" };
  const { digest, size, mediaType } = image.manifest;
  await setName(store, { name, digest: digest as `sha256:${string}`, size, mediaType, platform });
  return store;
}

const platform = { os: "linux", architecture: "amd64" };

/** What became of each blob, in words. */
const ways = (pushed: Pushed): string[] => pushed.blobs.map(({ how }) => how).sort();

describe.skipIf(!["docker-registry", "skopeo", "htpasswd", "openssl"].every(hasTool))(
  "docker-registry with TLS and a password",
  () => {
    test("has what was pushed, under the same digest; nothing is sent twice", async () => {
      const user = { name: "anna", password: "geheim:Wort" };
      const registry = await startRegistry({ tls: true, user });
      try {
        const certs = join(root, "certs");
        mkdirSync(certs, { recursive: true });
        copyFileSync(registry.caFile ?? "", join(certs, "ca.crt"));
        const options: RegistryOptions = {
          caFile: registry.caFile ?? "",
          credentials: { kind: "basic", username: user.name, password: user.password },
          env: {},
        };
        const store = await storeWith(`${registry.host}/some/image:1`);
        const context = { store, platform, registry: options, pieceBytes: 1 << 20 };
        const name = `${registry.host}/some/image:1`;
        const first = await pushImage(name, undefined, context);
        expect(first).toMatchObject({ destination: name, digest: image.manifest.digest });
        expect(ways(first)).toEqual(["sent", "sent", "sent", "sent"]);
        expect(ways(await pushImage(name, undefined, context))).toEqual(
          Array.from({ length: 4 }, () => "present"),
        );
        const other = await pushImage(name, `${registry.host}/other/place:2`, context);
        expect(ways(other)).toEqual(["mounted", "mounted", "mounted", "sent"]);
        for (const place of [name, `${registry.host}/other/place:2`]) {
          const dir = await mkdtemp(join(root, "back-"));
          await run("skopeo", [
            "copy",
            "-q",
            `--src-cert-dir=${certs}`,
            `--src-creds=${user.name}:${user.password}`,
            `docker://${place}`,
            `dir:${dir}`,
          ]);
          expect(readFileSync(join(dir, "manifest.json")).equals(image.manifest.bytes)).toBe(true);
          for (const blob of [image.config, ...image.layers]) {
            expect(readFileSync(join(dir, blob.digest.slice(7))).equals(blob.bytes)).toBe(true);
          }
        }
        const wrong = { ...options, credentials: { ...user, kind: "basic", username: "eve" } };
        await expect(
          pushImage(name, undefined, { ...context, registry: wrong as RegistryOptions }),
        ).rejects.toMatchObject({ code: "ERR_IMAGE_UNAUTHORIZED" });
      } finally {
        await registry.stop();
      }
    });

    test("pushes what came from a layout, as it came", async () => {
      const registry = await startRegistry();
      try {
        const store = await openStore(await mkdtemp(join(root, "store-")));
        const zstd = makeImage({ layers: [tarOf("z", noise(200_000, 9))], compression: "zstd" });
        const layout = join(root, "zstd");
        writeLayout(layout, [{ top: zstd.manifest, tag: "x", images: [zstd] }]);
        await run("skopeo", ["copy", "-q", `oci:${layout}:x`, `oci:${store.dir}:here.test/z:1`]);
        const pushed = await pushImage("here.test/z:1", `${registry.host}/z`, {
          store,
          registry: { env: {} },
        });
        expect(pushed.digest).toBe(zstd.manifest.digest);
        const fresh = await openStore(await mkdtemp(join(root, "store-")));
        const back = await resolveImage(parseImageSource(`${registry.host}/z:latest`), {
          store: fresh,
          registry: { env: {} },
        });
        expect(back.digest).toBe(pushed.digest);
      } finally {
        await registry.stop();
      }
    });
  },
);

describe("a registry that does wrong", () => {
  let receiver: Receiver;
  let store: ContentStore;
  let said: ProgressEvent[];
  beforeEach(async () => {
    receiver = await startReceiver();
    store = await storeWith(`${receiver.host}/a/b:1`);
    said = [];
  });
  afterEach(async () => receiver.stop());

  const push = async (more: Partial<Parameters<typeof pushImage>[2]> = {}): Promise<Pushed> =>
    pushImage(`${receiver.host}/a/b:1`, undefined, {
      store,
      platform,
      registry: { env: {}, retry: { budget: 3, delayMs: 1, longestWaitMs: 5000 } },
      pieceBytes: 1 << 20,
      onProgress: (event) => said.push(event),
      ...more,
    });
  /** Everything is there, bit by bit. */
  const expectWhole = (repository = "a/b", tag = "1"): void => {
    expect(receiver.manifests.get(`${repository}:${tag}`)?.equals(image.manifest.bytes)).toBe(true);
    for (const { digest, bytes } of [image.config, ...image.layers]) {
      expect(receiver.blobs.get(`${repository}@${digest}`)?.equals(bytes)).toBe(true);
    }
    expect(receiver.uploads.size).toBe(0);
  };

  test("a piece that breaks off is continued where the registry got to", async () => {
    receiver.mishap = ({ method, earlier }) =>
      method === "PATCH" && earlier === 1 ? { kind: "cut", after: 300_000 } : undefined;
    await push();
    expectWhole();
    const ranges = receiver.seen
      .filter(({ method }) => method === "PATCH")
      .map((seen) => seen.range);
    expect(ranges[1]).toBe("1048576-2097151");
    // What had come of the cut piece is not sent again.
    expect(Number(ranges[2]?.split("-")[0])).toBeGreaterThan(1_048_576);
    expect(said.some(({ message }) => message?.includes("Trying again"))).toBe(true);
  });

  test("wherever the line is cut, before, within or behind a request, all arrives and no upload stays that is known", async () => {
    await push();
    const requests = receiver.seen.length;
    expect(requests).toBeGreaterThan(15);
    const cuts = [
      { kind: "cut", after: 0 },
      { kind: "cut", after: 1000 },
      { kind: "lost" },
    ] as const;
    for (const cut of cuts) {
      for (let index = 0; index < requests; index += 1) {
        receiver.blobs.clear();
        receiver.manifests.clear();
        const before = receiver.seen.length;
        receiver.mishap = () => (receiver.seen.length - before === index + 1 ? cut : undefined);
        await push();
        // Of an upload whose address was lost nobody can say that it is not wanted.
        const nameless = cut.kind === "lost" && receiver.seen[before + index]?.method === "POST";
        if (nameless) expect(receiver.uploads.size).toBe(1);
        if (nameless) receiver.uploads.clear();
        expectWhole();
      }
    }
  }, 300_000);

  test("where pieces are refused, a blob is sent in one request", async () => {
    receiver.mishap = ({ method }) =>
      method === "PATCH" ? { kind: "status", status: 405 } : undefined;
    await push();
    expectWhole();
    expect(receiver.seen.filter(({ method }) => method === "PATCH")).toHaveLength(1);
  });

  test("a body larger than a proxy lets through is sent in pieces", async () => {
    let refused = 0;
    receiver.mishap = ({ method, path }) => {
      if (method !== "PUT" || !path.includes("uploads") || refused > 0) return undefined;
      refused += 1;
      return { kind: "status", status: 413 };
    };
    await push({ pieceBytes: 1 << 30 });
    expectWhole();
    expect(refused).toBe(1);
  });

  test("failures beyond the budget end with their code, and leave no upload", async () => {
    receiver.mishap = ({ method }) =>
      method === "PATCH" ? { kind: "status", status: 503 } : undefined;
    await expect(push()).rejects.toMatchObject({ code: "ERR_IMAGE_REGISTRY" });
    expect(receiver.uploads.size).toBe(0);
    expect(receiver.manifests.size).toBe(0);
    // The next one starts with what is there.
    receiver.mishap = () => undefined;
    expect(ways(await push())).toContain("present");
    expectWhole();
  });

  test("a push that is cut short leaves nothing behind, and the next one is whole", async () => {
    const stop = new AbortController();
    receiver.mishap = ({ method, earlier }) => {
      if (method === "PATCH" && earlier === 1) setTimeout(() => stop.abort(new Error("stop")), 0);
      return undefined;
    };
    await expect(push({ signal: stop.signal, pieceBytes: 100_000 })).rejects.toThrow("stop");
    expect(receiver.uploads.size).toBe(0);
    receiver.mishap = () => undefined;
    await push();
    expectWhole();
  });

  test("an upload that begins while the push is given up is forgotten, too", async () => {
    const stop = new AbortController();
    receiver.mishap = ({ method }) => {
      if (method === "POST") stop.abort(new Error("stop"));
      return undefined;
    };
    await expect(push({ signal: stop.signal })).rejects.toThrow("stop");
    expect(receiver.seen.some(({ method }) => method === "POST")).toBe(true);
    expect(receiver.uploads.size).toBe(0);
  });

  test("tokens are asked for pull and push, and for the repository that blobs are taken from", async () => {
    receiver.scopes = [];
    await push();
    expectWhole();
    expect(receiver.scopes).toEqual(["repository:a/b:pull,push"]);
    const moved = await pushImage(`${receiver.host}/a/b:1`, `${receiver.host}/c/d:2`, {
      store,
      platform,
      registry: { env: {} },
      onProgress: (event) => said.push(event),
    });
    expect(ways(moved)).toEqual(["mounted", "mounted", "mounted", "sent"]);
    expectWhole("c/d", "2");
    expect(
      receiver.seen.some(
        ({ path, query }) =>
          path === "/token" && query.getAll("scope").includes("repository:a/b:pull"),
      ),
    ).toBe(true);
    expect(JSON.stringify(said)).not.toContain("secret-token");
  });

  test("a registry that does not let others' blobs be taken is sent them", async () => {
    await push();
    await tagImage(store, `${receiver.host}/a/b:1`, `${receiver.host}/e/f:3`, platform);
    receiver.mishap = ({ query }) =>
      query.has("mount") ? { kind: "status", status: 403 } : undefined;
    const moved = await pushImage(`${receiver.host}/e/f:3`, undefined, {
      store,
      platform,
      registry: { env: {} },
    });
    expect(ways(moved)).toEqual(["sent", "sent", "sent", "sent"]);
    expectWhole("e/f", "3");
  });

  test("a blob that is damaged here is not sent", async () => {
    writeFileSync(store.blobPath(large.digest as `sha256:${string}`), noise(large.size, 99));
    await expect(push()).rejects.toMatchObject({ code: "ERR_IMAGE_BLOB_CORRUPT" });
    expect(receiver.seen).toEqual([]);
    expect(readdirSync(join(store.dir, "leases"))).toEqual([]);
  });

  test("a destination with a digest is refused", async () => {
    const to = `${receiver.host}/a/b@${image.manifest.digest}`;
    await expect(
      pushImage(`${receiver.host}/a/b:1`, to, { store, platform, registry: {} }),
    ).rejects.toMatchObject({ code: "ERR_VALIDATION_IMAGE_REF" });
  });
});
