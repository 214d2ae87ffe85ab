/** Pulls from a registry that does wrong: never a wrong image, never a hang, never from the start again. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync } from "node:zlib";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { startFaulty } from "../../../test/registry/faulty.ts";
import type { Fault, FaultyRegistry, Seen } from "../../../test/registry/faulty.ts";
import { makeImage, noise, tarOf } from "../../../test/registry/fixture.ts";
import type { Image } from "../../model/image.ts";
import type { VmsanError } from "../../model/errors.ts";
import type { ProgressEvent } from "../../model/progress.ts";
import { openStore, parseImageSource, resolveImage } from "../images.ts";
import type { ResolveOptions } from "../images.ts";
import { verifyStore } from "../store/testing.ts";
import type { RegistryOptions } from "./pull.ts";
import { digestOf } from "../store/store.ts";
import type { ContentStore } from "../store/store.ts";

const image = makeImage({
  layers: [
    tarOf("a", noise(3_000_000, 1)),
    tarOf("b", noise(1000, 2)),
    tarOf("c", Buffer.alloc(0)),
  ],
});
const big = image.layers[0];
if (big === undefined) throw new Error("no layer");
const root = await mkdtemp(join(tmpdir(), "vmsan-faulty-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let registry: FaultyRegistry;
let store: ContentStore;
let said: ProgressEvent[];

beforeEach(async () => {
  registry = await startFaulty({
    repository: "a/b",
    tags: { latest: image.manifest },
    images: [image],
  });
  store = await openStore(await mkdtemp(join(root, "store-")));
  said = [];
});
afterEach(async () => registry.stop());

/** No waits worth mentioning, and an idle time that tests can sit out. */
const quick: RegistryOptions = {
  retry: { budget: 3, delayMs: 1, longestWaitMs: 5000 },
  idleTimeoutMs: 400,
  env: {},
};

async function pull(options: Partial<ResolveOptions> = {}, host = registry.host): Promise<Image> {
  return resolveImage(parseImageSource(`${host}/a/b`), {
    store,
    registry: quick,
    onProgress: (event) => said.push(event),
    ...options,
  });
}

/** The error that a pull ends with; the store must be sound nevertheless. */
async function failure(options: Partial<ResolveOptions> = {}): Promise<VmsanError> {
  const error = await pull(options).then(
    () => undefined,
    (reason: unknown) => reason as VmsanError,
  );
  expect(error).toBeDefined();
  expect(await verifyStore(store)).toEqual([]);
  if (error === undefined) throw new Error("unreachable");
  expect(error.why).toBeTruthy();
  expect(error.fix).toBeTruthy();
  return error;
}

/** Every layer is what the registry has. */
function expectWhole(pulled: Image): void {
  expect(pulled.digest).toBe(image.manifest.digest);
  for (const [index, layer] of pulled.layers.entries()) {
    expect(readFileSync(layer.path).equals(image.layers[index]?.bytes ?? Buffer.alloc(0))).toBe(
      true,
    );
  }
}

const isBig = (seen: Seen): boolean => seen.path.endsWith(big.digest);
const messages = (): string => said.map((event) => event.message ?? "").join("\n");

/** The first so many requests for the big layer get a fault. */
function faultBig(times: number, fault: (seen: Seen) => Fault): void {
  registry.fault = (seen) => (isBig(seen) && seen.earlier < times ? fault(seen) : undefined);
}

test("a dropped connection is resumed where it broke, at any byte", async () => {
  const cuts = [1, 1_400_000, 77];
  faultBig(cuts.length, (seen) => ({ kind: "drop", after: cuts[seen.earlier] ?? 0 }));
  expectWhole(await pull());
  const ranges = registry.seen.filter(isBig).map((seen) => seen.range);
  expect(ranges[0]).toBeUndefined();
  expect(ranges.slice(1).every((range) => range !== undefined)).toBe(true);
  // Nothing was sent twice.
  expect(registry.sent.get(big.digest)).toBe(big.size);
  expect(messages()).toMatch(/closed in the middle.*Trying again/);
});

test("where nobody listens, three tries are enough: whoever is offline hears so within two seconds", async () => {
  const { host } = registry;
  await registry.stop();
  const options = { registry: { env: {} } };
  await expect(pull(options, host)).rejects.toMatchObject({
    code: "ERR_IMAGE_NETWORK",
    why: expect.stringContaining("ECONNREFUSED") as string,
  });
  expect(said.filter(({ message = "" }) => message.includes("Trying again"))).toHaveLength(2);
});

test("whoever follows is told of nothing that is not in the files, and of everything in the end", async () => {
  const cuts = [1, 1_400_000, 77];
  faultBig(cuts.length, (seen) => ({ kind: "drop", after: cuts[seen.earlier] ?? 0 }));
  const told = new Map<string, number>();
  let lost = 0;
  await pull({
    follow: (layers) => {
      expect(layers.map(({ diffId }) => diffId)).toEqual(
        image.layers.map(({ bytes }) => digestOf(gunzipSync(bytes))),
      );
      return {
        arrived: (digest, bytes) => {
          const layer = layers.find((each) => each.digest === digest);
          const whole = image.layers.find((each) => each.digest === digest);
          if (layer === undefined) return;
          expect(bytes).toBeGreaterThanOrEqual(told.get(digest) ?? 0);
          told.set(digest, bytes);
          const file = existsSync(layer.path) ? layer.path : layer.partial;
          const there = readFileSync(file).subarray(0, bytes);
          expect(there.equals(whole?.bytes.subarray(0, bytes) ?? Buffer.alloc(0))).toBe(true);
        },
        lost: () => (lost += 1),
      };
    },
  });
  expect(Object.fromEntries(told)).toEqual(
    Object.fromEntries(image.layers.map(({ digest, size }) => [digest, size])),
  );
  expect(lost).toBe(0);
});

test("a cut at the very start and at the very end of the body", async () => {
  faultBig(2, (seen) => ({ kind: "drop", after: seen.earlier === 0 ? 0 : big.size - 1 }));
  expectWhole(await pull());
});

test("a pull that gave up is continued by the next one", async () => {
  faultBig(100, (seen) => ({ kind: "drop", after: seen.earlier === 0 ? 2_000_000 : 0 }));
  expect((await failure()).code).toBe("ERR_IMAGE_NETWORK");
  registry.fault = () => undefined;
  registry.sent.clear();
  expectWhole(await pull());
  expect(registry.sent.get(big.digest)).toBe(big.size - 2_000_000);
});

test("a server that knows no ranges: everything again, and right", async () => {
  registry.fault = (seen) =>
    isBig(seen)
      ? seen.earlier === 0
        ? { kind: "drop", after: 1_000_000 }
        : { kind: "ignoreRange" }
      : undefined;
  expectWhole(await pull());
});

test("too short and too long a Content-Length", async () => {
  faultBig(1, () => ({ kind: "length", announced: 1000 }));
  expectWhole(await pull());
  store = await openStore(await mkdtemp(join(root, "store-")));
  registry.fault = (seen) =>
    isBig(seen) ? { kind: "length", announced: big.size + 1000 } : undefined;
  // The descriptor says how much there is, whatever the server announces.
  expectWhole(await pull());
});

test("chunked coding instead of a length", async () => {
  registry.fault = () => ({ kind: "chunked" });
  expectWhole(await pull());
});

test("429 with Retry-After is obeyed, 500s are tried again", async () => {
  registry.fault = (seen) => {
    if (seen.kind === "manifest" && seen.earlier === 0) {
      return { kind: "status", status: 429, headers: { "retry-after": "1" } };
    }
    return isBig(seen) && seen.earlier < 2
      ? { kind: "status", status: 500 + seen.earlier }
      : undefined;
  };
  const before = performance.now();
  expectWhole(await pull());
  expect(performance.now() - before).toBeGreaterThan(950);
  expect(messages()).toMatch(/status 429/);
});

test("a Retry-After of an hour is not sat out", async () => {
  registry.fault = (seen) =>
    seen.kind === "manifest"
      ? { kind: "status", status: 429, headers: { "retry-after": "3600" } }
      : undefined;
  const error = await failure();
  expect(error.code).toBe("ERR_IMAGE_RATE_LIMIT");
  expect(error.why).toMatch(/3600 seconds/);
  expect(registry.seen.filter((seen) => seen.kind === "manifest")).toHaveLength(1);
});

test("endless 500s end after a few tries", async () => {
  faultBig(1000, () => ({ kind: "status", status: 503, body: '{"errors":[{"message":"tired"}]}' }));
  const error = await failure();
  expect(error.code).toBe("ERR_IMAGE_REGISTRY");
  expect(error.why).toMatch(/tired/);
  expect(registry.seen.filter(isBig)).toHaveLength(4);
});

test("wrong bytes: once more, then an error, and nothing is kept", async () => {
  faultBig(1, () => ({ kind: "corrupt" }));
  expectWhole(await pull());
  store = await openStore(await mkdtemp(join(root, "store-")));
  registry.fault = (seen) => (isBig(seen) ? { kind: "corrupt" } : undefined);
  const error = await failure();
  expect(error.code).toBe("ERR_IMAGE_DIGEST");
  expect(error.why).toContain(big.digest);
});

test("a corrupt manifest asked for by digest", async () => {
  registry.fault = (seen) => (seen.kind === "manifest" ? { kind: "corrupt" } : undefined);
  const source = parseImageSource(`${registry.host}/a/b@${image.manifest.digest}`);
  await expect(resolveImage(source, { store, registry: quick })).rejects.toMatchObject({
    code: "ERR_IMAGE_DIGEST",
  });
});

test("an endless body is cut at the announced size", async () => {
  registry.fault = (seen) => (isBig(seen) ? { kind: "endless" } : undefined);
  expect((await failure()).code).toBe("ERR_IMAGE_DIGEST");
});

test("an endless manifest is cut at the limit", async () => {
  registry.fault = (seen) => (seen.kind === "manifest" ? { kind: "endless" } : undefined);
  expect((await failure()).code).toBe("ERR_IMAGE_TOO_LARGE");
});

test("a slow drip and a silent server end in bounded time", async () => {
  for (const fault of [{ kind: "drip", everyMs: 20 }, { kind: "silent" }] as const) {
    store = await openStore(await mkdtemp(join(root, "store-")));
    registry.fault = (seen) => (isBig(seen) ? fault : undefined);
    const error = await failure();
    expect(error.code).toBe("ERR_IMAGE_STALLED");
    expect(error.why).toMatch(/0\.4 seconds/);
  }
});

test("slow but steady is fine", async () => {
  faultBig(1, () => ({ kind: "slow", bytes: 200_000, everyMs: 50 }));
  expectWhole(await pull());
});

test("a redirect to another host gets no credentials", async () => {
  const other = await startFaulty({ repository: "a/b", tags: {}, images: [image] });
  try {
    registry.tokens = new Set();
    registry.fault = (seen) =>
      isBig(seen) && seen.authorization !== undefined
        ? { kind: "redirect", to: `http://${other.host}${seen.path}?signature=secret` }
        : undefined;
    expectWhole(await pull());
    expect(other.seen).toHaveLength(1);
    expect(other.seen[0]?.authorization).toBeUndefined();
    other.fault = () => ({ kind: "status", status: 403 });
    store = await openStore(await mkdtemp(join(root, "store-")));
    const error = await failure();
    expect(JSON.stringify(error)).not.toContain("secret");
  } finally {
    await other.stop();
  }
});

test("redirects in a circle end", async () => {
  registry.fault = (seen) =>
    isBig(seen) ? { kind: "redirect", to: `http://${registry.host}${seen.path}` } : undefined;
  expect((await failure()).code).toBe("ERR_IMAGE_REDIRECT");
});

test("a token that expires midway is renewed", async () => {
  let number = 0;
  registry.tokens = new Set();
  registry.nextToken = () => `token-${(number += 1)}`;
  registry.fault = (seen) => {
    if (!isBig(seen) || seen.earlier > 0) return undefined;
    registry.tokens?.clear();
    return { kind: "drop", after: 1_000_000 };
  };
  expectWhole(await pull());
  expect(number).toBe(2);
});

test("a token that is never accepted ends at once", async () => {
  registry.tokens = new Set();
  registry.fault = (seen) => {
    if (seen.kind !== "token") registry.tokens?.clear();
    return undefined;
  };
  const error = await failure();
  expect(error.code).toBe("ERR_IMAGE_UNAUTHORIZED");
  expect(registry.seen.length).toBeLessThan(8);
});

test("aborting leaves no temporary file and can be continued", async () => {
  const controller = new AbortController();
  faultBig(1, () => ({ kind: "slow", bytes: 300_000, everyMs: 30 }));
  const reason = new Error("enough");
  const onProgress = (event: ProgressEvent): void => {
    if ((event.done ?? 0) > 500_000) controller.abort(reason);
  };
  await expect(pull({ signal: controller.signal, onProgress })).rejects.toBe(reason);
  expect(await verifyStore(store)).toEqual([]);
  registry.sent.clear();
  expectWhole(await pull());
  expect(registry.sent.get(big.digest)).toBeLessThan(big.size);
});

test("a missing blob and a missing image", async () => {
  registry.fault = (seen) => (isBig(seen) ? { kind: "status", status: 404 } : undefined);
  expect((await failure()).code).toBe("ERR_IMAGE_NOT_FOUND");
  await expect(
    resolveImage(parseImageSource(`${registry.host}/a/none`), { store, registry: quick }),
  ).rejects.toMatchObject({ code: "ERR_IMAGE_NOT_FOUND" });
});

test("a registry that does not listen", async () => {
  await registry.stop();
  expect((await failure()).code).toBe("ERR_IMAGE_NETWORK");
});

test("callers at the same time fetch each blob once", async () => {
  faultBig(1, () => ({ kind: "slow", bytes: 500_000, everyMs: 20 }));
  const images = await Promise.all([pull(), pull(), pull()]);
  images.forEach(expectWhole);
  for (const layer of image.layers) expect(registry.sent.get(layer.digest)).toBe(layer.size);
});

test("processes at the same time fetch each blob once", async () => {
  faultBig(1, () => ({ kind: "slow", bytes: 500_000, everyMs: 100 }));
  const program = join(import.meta.dirname, "../../../test/registry/pull-once.ts");
  const run = promisify(execFile);
  const pulls = [1, 2].map(async () =>
    run(process.execPath, [program, store.dir, `${registry.host}/a/b`]),
  );
  for (const { stdout } of await Promise.all(pulls)) {
    expect(stdout).toContain(image.manifest.digest);
  }
  for (const layer of image.layers) expect(registry.sent.get(layer.digest)).toBe(layer.size);
  expect(await verifyStore(store)).toEqual([]);
});

test("with `missing` a cached image needs no network, `always` asks, `never` does not", async () => {
  await expect(pull({ pull: "never" })).rejects.toMatchObject({ code: "ERR_IMAGE_NOT_CACHED" });
  await pull();
  const { length } = registry.seen;
  expectWhole(await pull());
  expectWhole(await pull({ pull: "never" }));
  expect(registry.seen).toHaveLength(length);
  await pull({ pull: "always" });
  expect(registry.seen.slice(length).filter((seen) => seen.kind === "blob")).toEqual([]);
  await registry.stop();
  expectWhole(await pull());
});

test("a mirror is asked first, and the registry when it fails", async () => {
  const mirror = await startFaulty({
    repository: "m/a/b",
    tags: { latest: image.manifest },
    images: [image],
  });
  try {
    const registries = {
      mirrors: { [registry.host]: [`http://${mirror.host}/m`] },
      insecure: [],
    };
    expectWhole(await pull({ registry: { ...quick, registries } }));
    expect(registry.seen).toEqual([]);
    // The mirror loses a blob in the middle: the registry has it.
    store = await openStore(await mkdtemp(join(root, "store-")));
    mirror.fault = (seen) => (isBig(seen) ? { kind: "status", status: 404 } : undefined);
    expectWhole(await pull({ registry: { ...quick, registries } }));
    expect(registry.seen.some(isBig)).toBe(true);
    await mirror.stop();
    store = await openStore(await mkdtemp(join(root, "store-")));
    expectWhole(await pull({ registry: { ...quick, registries } }));
  } finally {
    await mirror.stop().catch(() => undefined);
  }
});
