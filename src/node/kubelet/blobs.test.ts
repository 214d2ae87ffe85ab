/** Layers from one node for another: who gets them, that they are used, and that nothing wrong comes of one that does wrong. */
import { mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { createServer, request } from "node:https";
import type { RequestOptions } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Authority } from "../../../test/fixtures/certificates.ts";
import type { Issued } from "../../../test/fixtures/certificates.ts";
import { installation, temporary } from "../../../test/fixtures/ladder.ts";
import { startFaulty } from "../../../test/registry/faulty.ts";
import type { FaultyRegistry } from "../../../test/registry/faulty.ts";
import { makeImage, noise, tarOf } from "../../../test/registry/fixture.ts";
import type { Blob } from "../../../test/registry/fixture.ts";
import { Vmsan } from "../../client/vmsan.ts";
import type { ApiServer } from "../../kube/api-server.ts";
import type { Log } from "../../util/log.ts";
import { Peers } from "../host/peers.ts";
import { serveKubelet } from "./server.ts";
import type { KubeletServer } from "./server.ts";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 240_000 });

const place = temporary();
const here = installation("nothing");
const image = makeImage({
  layers: [tarOf("a", noise(3_000_000, 1)), tarOf("b", noise(200_000, 2)), tarOf("c", noise(9, 3))],
});
const [big, middle] = image.layers;
if (big === undefined || middle === undefined) throw new Error("no layers");
const quiet: Log = { info: () => undefined, error: () => undefined };

/** What the API server lets callers do, and whom it lists. */
let allowed = true;
let listed: unknown = { items: [] };
const reviewed: Record<string, unknown>[] = [];
const api: ApiServer = {
  url: "https://127.0.0.1:1",
  request: async (method, path, options) => {
    await Promise.resolve();
    if (method === "GET") return listed;
    if (path.endsWith("tokenreviews")) {
      const user = { username: "system:node:host-5", groups: ["system:nodes"] };
      return { status: { authenticated: true, user } };
    }
    const { spec } = (options?.body ?? {}) as { spec: Record<string, unknown> };
    reviewed.push(spec);
    return { status: { allowed } };
  },
  watch: () => {
    throw new Error("not watched");
  },
};
const noPods = { adopted: Promise.resolve(), find: () => undefined, list: () => [] };

let authority: Authority;
let node: Issued;
let there: Vmsan;
let registry: FaultyRegistry;
let server: KubeletServer;

async function serve(peers: boolean): Promise<KubeletServer> {
  return await serveKubelet({
    node: "host-2",
    pods: noPods,
    vmsan: there,
    api,
    address: { host: "127.0.0.1", port: 0 },
    certificate: authority.issue("host-2", "/O=system:nodes/CN=system:node:host-2", [
      "IP:127.0.0.1",
    ]),
    clientCa: authority.cert,
    peers,
    log: quiet,
  });
}

const blobFile = (digest: string): string =>
  join(there.daemon.layout.images, "blobs/sha256", digest.slice(7));

beforeAll(() => {
  authority = new Authority(join(place.path, "ca"));
  node = authority.issue("host-1", "/O=system:nodes/CN=system:node:host-1");
});
beforeEach(async () => {
  there = new Vmsan({ dir: join(place.path, "there") });
  mkdirSync(join(there.daemon.layout.images, "blobs/sha256"), { recursive: true });
  for (const { digest, bytes } of image.layers) writeFileSync(blobFile(digest), bytes);
  allowed = true;
  registry = await startFaulty({
    repository: "a/b",
    tags: { latest: image.manifest },
    images: [image],
  });
  server = await serve(true);
});
afterEach(async () => {
  await server.close();
  await registry.stop();
  // Each test's pull begins with an empty store.
  const names = (await here.vmsan.images.list()).images.flatMap((one) => one.names);
  for (const name of names) await here.vmsan.images.remove(name);
  await here.vmsan.images.prune({ all: true });
  rmSync(there.daemon.layout.root, { recursive: true });
});

/** Another node, as the API server lists it. */
function listedNode(change: { names?: string[]; ready?: string; port?: number }): object {
  const { names = [`${registry.host}/a/b:latest`], ready = "True", port = server.port } = change;
  return {
    metadata: { name: "host-2" },
    status: {
      conditions: [{ type: "Ready", status: ready }],
      addresses: [{ type: "InternalIP", address: "127.0.0.1" }],
      daemonEndpoints: { kubeletEndpoint: { Port: port } },
      images: [{ names }],
    },
  };
}

function peers(own: Partial<Issued> = node): Peers {
  const { cert, key } = own;
  const tls = {
    ca: authority.cert,
    ...(cert === undefined || key === undefined ? {} : { cert, key }),
  };
  const identity = {
    url: api.url,
    tls: () => tls,
    headers: async () => await Promise.resolve({}),
    refused: () => false,
  };
  return new Peers({ api, identity, node: "host-1", log: quiet });
}

/** Pull as a pod's start does. @returns bytes that the registry has sent of the two large layers */
async function pulled(port = server.port): Promise<(number | undefined)[]> {
  const source = `${registry.host}/a/b`;
  const found = await peers().having(source);
  expect(found?.hosts).toEqual([`127.0.0.1:${port}`]);
  const got = await here.vmsan.images.pull(source, found === undefined ? {} : { peers: found });
  expect(got.digest).toBe(image.manifest.digest);
  const { images } = here.vmsan.daemon.layout;
  for (const { digest, size } of image.layers) {
    expect(statSync(join(images, "blobs/sha256", digest.slice(7))).size).toBe(size);
  }
  return image.layers.slice(0, 2).map(({ digest }) => registry.sent.get(digest));
}

describe("pulls", () => {
  beforeEach(() => {
    listed = { items: [listedNode({}), { metadata: { name: "host-1" } }] };
  });

  test("what another node has comes from it, what an image is from the registry", async () => {
    expect(await pulled()).toEqual([undefined, undefined]);
    expect(registry.seen.some(({ kind }) => kind === "manifest")).toBe(true);
    expect(reviewed.at(-1)).toMatchObject({
      user: "system:node:host-1",
      groups: ["system:nodes", "system:authenticated"],
      resourceAttributes: { verb: "get", resource: "nodes", subresource: "blobs", name: "host-2" },
    });
  });

  test("what it lacks comes from the registry", async () => {
    rmSync(blobFile(big.digest));
    expect(await pulled()).toEqual([big.size, undefined]);
  });

  test("a layer that is another one there comes from the registry", async () => {
    writeFileSync(blobFile(big.digest), Buffer.alloc(big.size, 7));
    // Too short: it says so by its length, and is not asked for.
    writeFileSync(blobFile(middle.digest), middle.bytes.subarray(1));
    expect(await pulled()).toEqual([big.size, middle.size]);
  });

  /** Pull where the other node says that it has both layers, and sends what it likes. */
  async function pulledFrom(
    send: (layer: Blob, response: ServerResponse) => void,
  ): Promise<{ asked: string[]; sent: (number | undefined)[] }> {
    const [first, second] = image.layers as [Blob, Blob];
    const asked: string[] = [];
    const { cert, key } = authority.issue("host-2", "/O=system:nodes/CN=system:node:host-2", [
      "IP:127.0.0.1",
    ]);
    const peer = createServer({ cert, key }, (incoming, response) => {
      const layer = String(incoming.url).endsWith(first.digest) ? first : second;
      response.writeHead(200, { "content-length": layer.size });
      if (incoming.method === "HEAD") {
        response.end();
        return;
      }
      asked.push(layer.digest);
      send(layer, response);
    });
    await new Promise<void>((resolve) => void peer.listen(0, "127.0.0.1", resolve));
    try {
      const { port } = peer.address() as AddressInfo;
      listed = { items: [listedNode({ port })] };
      return { asked, sent: await pulled(port) };
    } finally {
      peer.closeAllConnections();
      peer.close();
    }
  }

  test("one that breaks off in the middle of something else spoils no pull", async () => {
    const { asked, sent } = await pulledFrom((layer, response) => {
      response.write(Buffer.alloc(layer.size / 2, 7), () => response.destroy());
    });
    // The rest of what is none, and then all of it. Who was found out once may not be asked for the other.
    expect(asked).not.toHaveLength(0);
    for (const [index, { digest, size }] of image.layers.slice(0, 2).entries()) {
      expect((sent[index] ?? 0) > size).toBe(asked.includes(digest));
    }
  });

  test("one that sends, but ever so slowly, holds no layer: the registry sends the rest", async () => {
    const { asked, sent } = await pulledFrom((layer, response) => {
      const half = layer.size / 2;
      response.write(layer.bytes.subarray(0, half));
      let at = half;
      const drip = setInterval(() => {
        response.write(layer.bytes.subarray(at, (at += 1_000)));
      }, 50);
      response.once("close", () => clearInterval(drip));
    });
    expect(asked).toContain(big.digest);
    expect(sent[0]).toBeLessThan(big.size);
    expect(sent[0]).toBeGreaterThan(0);
  });

  test("one that refuses, or is not there, is done without", async () => {
    allowed = false;
    expect(await pulled()).toEqual([big.size, middle.size]);
  });

  test("whom the registry refuses the image does not get it from a node", async () => {
    registry.tokens = new Set();
    registry.tokenAnswer = () => ({ token: "of nobody" });
    registry.nextToken = () => "another";
    registry.tokens.add = () => registry.tokens as Set<string>;
    await expect(pulled()).rejects.toMatchObject({ code: "ERR_IMAGE_UNAUTHORIZED" });
  });
});

test("nodes are asked that say that they have the image, are ready, and are others", async () => {
  const source = `${registry.host}/a/b`;
  const of = async (...items: object[]): Promise<unknown> => {
    listed = { items };
    return (await peers().having(source))?.hosts;
  };
  expect(await of(listedNode({}))).toEqual([`127.0.0.1:${server.port}`]);
  expect(await of(listedNode({ names: [`${registry.host}/a/c:latest`] }))).toBeUndefined();
  expect(await of(listedNode({ ready: "Unknown" }))).toBeUndefined();
  expect(await of({ ...listedNode({}), metadata: { name: "host-1" } })).toBeUndefined();
  const many = Array.from({ length: 9 }, (_, index) => listedNode({ port: 1000 + index }));
  expect(await of(...many)).toHaveLength(4);
  expect(await of({ metadata: {} })).toBeUndefined();
  // Without a certificate of its own no node would answer it.
  listed = { items: [listedNode({})] };
  expect(await peers({}).having(source)).toBeUndefined();
  expect(await peers().having("rootfs:/")).toBeUndefined();
});

describe("who asks", () => {
  async function get(
    path: string,
    own: Partial<Issued>,
    extra: RequestOptions = {},
  ): Promise<{ status: number | undefined; bytes: Buffer; headers: Record<string, unknown> }> {
    const { cert, key } = own;
    const { port } = server;
    const options = { host: "127.0.0.1", port, path, ca: authority.cert, cert, key, agent: false };
    return await new Promise((resolve, reject) => {
      request({ ...options, ...extra }, (reply) => {
        const parts: Buffer[] = [];
        reply.on("data", (part: Buffer) => parts.push(part));
        reply.on("end", () =>
          resolve({
            status: reply.statusCode,
            bytes: Buffer.concat(parts),
            headers: reply.headers,
          }),
        );
      })
        .on("error", reject)
        .end();
    });
  }
  const path = `/v2/node/blobs/${big.digest}`;

  test("a node gets a blob, and the rest of one", async () => {
    expect((await get(path, node)).bytes.equals(big.bytes)).toBe(true);
    const rest = await get(path, node, { headers: { range: "bytes=1000-" } });
    expect(rest.status).toBe(206);
    expect(rest.bytes.equals(big.bytes.subarray(1000))).toBe(true);
    expect(rest.headers["content-range"]).toBe(`bytes 1000-${big.size - 1}/${big.size}`);
    const beyond = await get(path, node, { headers: { range: `bytes=${big.size}-` } });
    expect(beyond.status).toBe(416);
    const head = await get(path, node, { method: "HEAD" });
    expect([head.status, head.headers["content-length"]]).toEqual([200, String(big.size)]);
  });

  test("nobody else does", async () => {
    expect((await get(path, {})).status).toBe(401);
    const admin = authority.issue("admin", "/O=system:masters/CN=kube-apiserver-kubelet-client");
    expect((await get(path, admin)).status).toBe(403);
    const named = authority.issue("named", "/O=others/CN=system:node:host-3");
    expect((await get(path, named)).status).toBe(403);
    const grouped = authority.issue("grouped", "/O=system:nodes/CN=anna");
    expect((await get(path, grouped)).status).toBe(403);
    const token = { headers: { authorization: "Bearer allowed" } };
    expect((await get(path, {}, token)).status).toBe(403);
    const stranger = new Authority(join(place.path, "other")).issue(
      "host-1",
      "/O=system:nodes/CN=system:node:host-1",
    );
    expect((await get(path, stranger)).status).toBe(401);
    allowed = false;
    const later = authority.issue("later", "/O=system:nodes/CN=system:node:host-4");
    expect((await get(path, later)).status).toBe(403);
  });

  test("there is nothing but blobs, by their digests", async () => {
    writeFileSync(join(there.daemon.layout.root, "secret"), "secret");
    const words = [
      "sha256:..%2f..%2f..%2fsecret",
      "..%2f..%2f..%2fsecret",
      `sha256:${"0".repeat(64)}`,
      "sha256:0",
      "",
    ];
    for (const word of words) expect((await get(`/v2/node/blobs/${word}`, node)).status).toBe(404);
    expect((await get(path, node, { method: "POST" })).status).not.toBe(200);
  });

  test("a node that was not told to gives none", async () => {
    await server.close();
    server = await serve(false);
    expect((await get(path, node)).status).toBe(404);
  });
});
