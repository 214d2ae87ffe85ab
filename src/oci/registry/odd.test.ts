/**
 * Pulls from registries that are odd and right: what real registries and the proxies before them
 * send, and skopeo and Docker take. Where skopeo is there, it judges each.
 */
import { execFile } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeEach, expect, test } from "vitest";
import { startFaulty } from "../../../test/registry/faulty.ts";
import type { Fault, FaultyRegistry, Seen } from "../../../test/registry/faulty.ts";
import { blob, makeImage, noise, tarOf } from "../../../test/registry/fixture.ts";
import type { FixtureImage } from "../../../test/registry/fixture.ts";
import { hasTool } from "../../../test/registry/docker-registry.ts";
import { openStore, parseImageSource, resolveImage } from "../images.ts";
import type { ContentStore } from "../store/store.ts";
import { verifyStore } from "../store/testing.ts";
import type { RegistryOptions } from "./pull.ts";

const image = makeImage({ layers: [tarOf("a", noise(300_000, 1)), tarOf("b", noise(10, 2))] });
const root = await mkdtemp(join(tmpdir(), "vmsan-odd-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let registry: FaultyRegistry;
let store: ContentStore;
beforeEach(async () => {
  registry = await startFaulty({
    repository: "a/b",
    tags: { latest: image.manifest },
    images: [image],
  });
  store = await openStore(await mkdtemp(join(root, "store-")));
});
afterEach(async () => registry.stop());

const quick: RegistryOptions = {
  retry: { budget: 1, delayMs: 1, longestWaitMs: 50 },
  idleTimeoutMs: 20_000,
  env: {},
};

/** Pull, and have everything arrive right. */
async function pulls(from: FixtureImage = image, options: RegistryOptions = quick): Promise<void> {
  const source = parseImageSource(`${registry.host}/a/b`);
  const pulled = await resolveImage(source, { store, registry: options });
  expect(pulled.digest).toBe(from.manifest.digest);
  expect(pulled.layers.map((layer) => layer.digest)).toEqual(from.layers.map((l) => l.digest));
  expect(await verifyStore(store)).toEqual([]);
}

/** Skopeo takes it, too: then it is odd and not wrong. */
async function skopeoAgrees(): Promise<void> {
  if (!hasTool("skopeo")) return;
  const dir = await mkdtemp(join(root, "skopeo-"));
  const from = `docker://${registry.host}/a/b`;
  await promisify(execFile)("skopeo", ["copy", "-q", "--src-tls-verify=false", from, `dir:${dir}`]);
}

/** Give every request of one kind a fault. */
function always(kind: string, fault: Fault | ((seen: Seen) => Fault | undefined)): void {
  registry.fault = (seen) =>
    seen.kind === kind ? (typeof fault === "function" ? fault(seen) : fault) : undefined;
}

test.each([301, 302, 303, 307, 308])("a token server that redirects with %i", async (status) => {
  registry.tokens = new Set();
  always("token", (seen) =>
    seen.path === "/token"
      ? { kind: "status", status, headers: { location: `/token/moved?${seen.query}` } }
      : undefined,
  );
  await pulls();
  await skopeoAgrees();
});

test("credentials follow a redirected token request only to the same party", async () => {
  registry.tokens = new Set();
  const credentials = { kind: "basic", username: "u", password: "secret" } as const;
  always("token", (seen) =>
    seen.path === "/token" ? { kind: "redirect", to: `/token/moved?${seen.query}` } : undefined,
  );
  await pulls(image, { ...quick, credentials });
  const moved = registry.seen.find((seen) => seen.path === "/token/moved");
  expect(moved?.authorization).toMatch(/^Basic /);

  const other = await startFaulty({ repository: "a/b", tags: {}, images: [] });
  try {
    other.nextToken = () => {
      registry.tokens?.add("theirs");
      return "theirs";
    };
    store = await openStore(await mkdtemp(join(root, "store-")));
    always("token", { kind: "redirect", to: `http://${other.host}/token` });
    await pulls(image, { ...quick, credentials });
    expect(other.seen.map((seen) => seen.authorization)).toEqual([undefined]);
    // An identity token is in the body: that is not sent on to anybody else.
    store = await openStore(await mkdtemp(join(root, "store-")));
    const identity = { kind: "identity", token: "secret" } as const;
    const source = parseImageSource(`${registry.host}/a/b`);
    registry.tokens.clear();
    const wanted = { store, registry: { ...quick, credentials: identity } };
    await expect(resolveImage(source, wanted)).rejects.toMatchObject({
      code: "ERR_IMAGE_REDIRECT",
    });
    expect(other.seen).toHaveLength(1);
  } finally {
    await other.stop();
  }
});

test.each([
  ["", ["repository:a/b:pull"]],
  [undefined, ["repository:a/b:pull"]],
  ["repository:a/b:pull", ["repository:a/b:pull"]],
  ["repository:other/b:pull", ["repository:a/b:pull", "repository:other/b:pull"]],
  [
    "repository:a/b:pull,push registry:catalog:*",
    ["repository:a/b:pull", "repository:a/b:pull,push", "registry:catalog:*"],
  ],
])("a challenge with the scope %j", async (scope, asked) => {
  registry.tokens = new Set();
  registry.scope = scope;
  registry.tokenAnswer = (token, query) => ({
    token: query.getAll("scope").includes("repository:a/b:pull") ? token : "useless",
  });
  await pulls();
  const [token] = registry.seen.filter((seen) => seen.kind === "token");
  expect(new URLSearchParams(token?.query).getAll("scope")).toEqual(asked);
  await skopeoAgrees();
});

test.each([
  (token: string) => ({ token: null, access_token: token }),
  (token: string) => ({ token: "", access_token: token }),
  (token: string) => ({ access_token: token, expires_in: null }),
  (token: string) => ({ token, access_token: null, refresh_token: null, issued_at: null }),
])("token answers with empty places: %s", async (answer) => {
  registry.tokens = new Set();
  registry.tokenAnswer = answer;
  await pulls();
  await skopeoAgrees();
});

test("every request says which codings it takes", async () => {
  registry.tokens = new Set();
  await pulls();
  expect(new Set(registry.seen.map((seen) => seen.kind))).toEqual(
    new Set(["manifest", "blob", "token"]),
  );
  for (const seen of registry.seen) expect(seen.acceptEncoding, seen.path).toBe("identity");
});

test.each(["manifest", "token", "blob"])("a %s that comes compressed", async (kind) => {
  registry.tokens = new Set();
  const judged = kind === "manifest" || kind === "token";
  always(kind, { kind: "coded", codings: ["gzip"] });
  if (judged) await skopeoAgrees();
  for (const codings of [["gzip"], ["deflate"], ["br"], ["zstd"], ["gzip", "br"]] as const) {
    for (const chunked of [true, false]) {
      store = await openStore(await mkdtemp(join(root, "store-")));
      always(kind, { kind: "coded", codings: [...codings], chunked });
      await pulls();
    }
  }
});

test("a compressed blob that breaks off begins again; a bomb and a lie end", async () => {
  always("blob", (seen) =>
    seen.earlier === 0 ? { kind: "drop", after: 1000 } : { kind: "coded", codings: ["gzip"] },
  );
  await pulls();
  const bomb = blob("application/json", Buffer.alloc(64 << 20, " "));
  for (const wrong of [
    { kind: "mislabelled", coding: "gzip" },
    { kind: "mislabelled", coding: "secret" },
    {
      kind: "raw",
      answer: () => ["HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", gzipSync(bomb.bytes)],
    },
  ] as const) {
    store = await openStore(await mkdtemp(join(root, "store-")));
    always("manifest", wrong);
    await expect(pulls()).rejects.toMatchObject({
      code: wrong.kind === "raw" ? "ERR_IMAGE_TOO_LARGE" : "ERR_IMAGE_NETWORK",
    });
  }
  // Object stores that take the blob's own compression for a coding: the length tells.
  store = await openStore(await mkdtemp(join(root, "store-")));
  always("blob", { kind: "mislabelled", coding: "gzip" });
  await pulls();
});

/** Skopeo wants a type; blobs have it as well, where nobody looks. */
const typed = "Content-Type: application/vnd.oci.image.manifest.v1+json";
const head = `HTTP/1.1 200 OK\r\n${typed}\r\n`;
/** A body in chunks of so many bytes. */
const chunks = (body: Buffer, size: number, extension = ""): Buffer[] => {
  const parts: Buffer[] = [];
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size);
    parts.push(
      Buffer.from(`${part.length.toString(16)}${extension}\r\n`),
      part,
      Buffer.from("\r\n"),
    );
  }
  return parts;
};

/** Answers framed as RFC 9112 allows a server, or tells a client to bear. */
const FRAMINGS: [string, (body: Buffer) => (string | Buffer)[]][] = [
  [
    "both framings, as proxies send them",
    (body) => [
      `${head}Transfer-Encoding: chunked\r\nContent-Length: ${body.length}\r\n\r\n`,
      ...chunks(body, 70_000),
      "0\r\n\r\n",
    ],
  ],
  [
    "both framings, the length a wrong one",
    (body) => [
      `${head}Content-Length: 3\r\nTransfer-Encoding: Chunked\r\n\r\n`,
      ...chunks(body, 1000),
      "0\r\n\r\n",
    ],
  ],
  [
    "chunks with extensions, leading zeros and a trailer",
    (body) => [
      `${head}Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n`,
      ...chunks(body, 5000, ';a="b"'),
      "000;last\r\nX: y\r\n\r\n",
    ],
  ],
  [
    "bytes behind the last chunk",
    (body) => [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...chunks(body, 5000), "0\r\n\r\nmore"],
  ],
  ["the end of the connection", (body) => [`${head}Connection: close\r\n\r\n`, body]],
  ["HTTP/1.0", (body) => [`HTTP/1.0 200 OK\r\n${typed}\r\n\r\n`, body]],
  [
    "the same length twice",
    (body) => [
      `${head}Content-Length: ${body.length}\r\nContent-Length: ${body.length}\r\n\r\n`,
      body,
    ],
  ],
  [
    "bytes behind the length",
    (body) => [`${head}Content-Length: ${body.length}\r\n\r\n`, body, "more"],
  ],
  [
    "an interim answer first",
    (body) => [
      `HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n${head}Content-Length: ${body.length}\r\n\r\n`,
      body,
    ],
  ],
  [
    "line feeds alone",
    (body) => [`HTTP/1.1 200 OK\n${typed}\nContent-Length: ${body.length}\n\n`, body],
  ],
  [
    "a folded header",
    (body) => [`${head}X-Note: a\r\n  b\r\nContent-Length: ${body.length}\r\n\r\n`, body],
  ],
  [
    "no reason and an empty header",
    (body) => [`HTTP/1.1 200\r\n${typed}\r\nX:\r\nContent-Length: ${body.length}\r\n\r\n`, body],
  ],
];

test.each(FRAMINGS)("blobs and manifests framed by %s", async (_, answer) => {
  registry.fault = () => ({ kind: "raw", answer });
  await pulls();
  await skopeoAgrees();
});

test.each([
  [
    "two lengths",
    (body: Buffer) => [`${head}Content-Length: 1\r\nContent-Length: 2\r\n\r\n`, body],
  ],
  ["a negative length", (body: Buffer) => [`${head}Content-Length: -1\r\n\r\n`, body]],
  [
    "an unknown transfer coding",
    (body: Buffer) => [`${head}Transfer-Encoding: cake\r\n\r\n`, body],
  ],
  [
    "chunks without an end",
    (body: Buffer) => [`${head}Transfer-Encoding: chunked\r\n\r\n`, ...chunks(body, 999)],
  ],
  [
    "a trailer without an end",
    (body: Buffer) => [
      `${head}Transfer-Encoding: chunked\r\n\r\n`,
      ...chunks(body, 999),
      "0\r\n",
      "A: b\r\n".repeat(20_000),
    ],
  ],
  [
    "a chunk that is longer than it says",
    (body: Buffer) => [`${head}Transfer-Encoding: chunked\r\n\r\n1\r\n`, body],
  ],
])("%s ends the pull", async (_, answer) => {
  always("manifest", { kind: "raw", answer });
  await expect(pulls()).rejects.toMatchObject({ code: "ERR_IMAGE_NETWORK" });
});

test("an address that is not ASCII", async () => {
  always("blob", (seen) =>
    seen.query === ""
      ? {
          kind: "raw",
          answer: () => [
            `HTTP/1.1 307 x\r\nLocation: ${seen.path}?name=käse\r\nContent-Length: 0\r\n\r\n`,
          ],
        }
      : undefined,
  );
  await pulls();
  const moved = registry.seen.find((seen) => seen.query !== "");
  expect(decodeURIComponent(moved?.query ?? "")).toBe("name=käse");
});

test("a non-distributable layer that is there is pulled; one that is not is named", async () => {
  const [first] = image.layers;
  if (first === undefined) throw new Error("no layer");
  const type = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
  const document = JSON.parse(image.manifest.bytes.toString()) as {
    layers: { mediaType: string }[];
  };
  for (const layer of document.layers) layer.mediaType = type;
  const bytes = Buffer.from(JSON.stringify(document));
  const odd = { ...image, manifest: blob(image.manifest.mediaType, bytes) };
  await registry.stop();
  registry = await startFaulty({
    repository: "a/b",
    tags: { latest: odd.manifest },
    images: [odd],
  });
  await pulls(odd);
  await skopeoAgrees();
  store = await openStore(await mkdtemp(join(root, "store-")));
  always("blob", (seen) =>
    seen.path.endsWith(first.digest) ? { kind: "status", status: 404 } : undefined,
  );
  await expect(pulls(odd)).rejects.toMatchObject({
    code: "ERR_IMAGE_FOREIGN_LAYER",
    why: expect.stringContaining("does not hold") as string,
  });
});
