import { X509Certificate, createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { FakeApiServer } from "../../../test/fixtures/api-server.ts";
import { temporary } from "../../../test/fixtures/ladder.ts";
import { KubeClient } from "../../kube/client.ts";
import { selfSigned } from "./certificates.ts";
import { joinCluster } from "./join.ts";
import { identityOf, joinedIdentity } from "./joined.ts";
import { rotate } from "./rotation.ts";

const place = temporary();
const server = selfSigned({ commonName: "api", hosts: ["127.0.0.1"] });
const client = selfSigned({ commonName: "system:node:host-1", organization: "system:nodes" });
const TOKEN = "abcdef.0123456789abcdef";
const INFO = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const { signal } = new AbortController();
const QUIET = { info: () => undefined, error: () => undefined };
let api: FakeApiServer;
let url: string;

beforeEach(async () => {
  api = new FakeApiServer();
  api.sign = () => client.cert;
  url = await api.start(server);
  const encoded = Buffer.from(server.cert).toString("base64");
  const kubeconfig = `clusters: [{ name: "", cluster: { server: "${url}", certificate-authority-data: ${encoded} } }]`;
  api.objects.set(INFO, { metadata: {}, data: { kubeconfig } });
});
afterEach(async () => await api.stop());

const spki = new X509Certificate(server.cert).publicKey.export({ type: "spki", format: "der" });
const hash = `sha256:${createHash("sha256").update(spki).digest("hex")}`;

test("a host joins by its token, and is then who its certificate says", async () => {
  const dir = join(place.path, "joined");
  const { name } = await joinCluster({
    url,
    token: TOKEN,
    caCertHash: hash,
    name: "host-1",
    dir,
    signal,
  });
  expect(name).toBe("host-1");
  const made = api.asked.find(({ method }) => method === "POST");
  expect(made?.authorization).toBe(`Bearer ${TOKEN}`);
  expect(made?.body.spec).toMatchObject({
    signerName: "kubernetes.io/kube-apiserver-client-kubelet",
    usages: ["digital signature", "client auth"],
  });
  // What tells of the authority is asked before anybody is trusted, so without the token.
  expect(api.asked.find(({ path }) => path === INFO)?.authorization).toBe("");
  const identity = await joinedIdentity(join(dir, "node"));
  expect(identity?.tls()).toMatchObject({ ca: server.cert, cert: client.cert });
  const text = await readFile(join(dir, "node/identity.json"), "utf8");
  expect(text).not.toContain(TOKEN);
});

test("the token is shown to nobody else than the cluster that was meant", async () => {
  const dir = join(place.path, "other");
  const caCertHash = `sha256:${"0".repeat(64)}`;
  const joining = { url, token: TOKEN, name: "host-1", dir, signal };
  await expect(joinCluster({ ...joining, caCertHash })).rejects.toMatchObject({
    code: "ERR_NODE_IDENTITY",
  });
  const ca = join(place.path, "ca.pem");
  await writeFile(ca, selfSigned({ commonName: "another" }).cert);
  await expect(joinCluster({ ...joining, ca })).rejects.toMatchObject({ code: "ERR_NODE_API" });
  await expect(joinCluster(joining)).rejects.toMatchObject({ code: "ERR_VALIDATION_FLAGS" });
  expect(api.asked.filter(({ authorization }) => authorization !== "")).toEqual([]);
  expect(await joinedIdentity(join(dir, "node"))).toBeUndefined();
});

test("an authority's file that is not there is named", async () => {
  const dir = join(place.path, "nameless");
  const ca = join(dir, "missing.crt");
  await expect(joinCluster({ url, token: TOKEN, ca, signal, dir })).rejects.toMatchObject({
    code: "ERR_VALIDATION_FLAGS",
    message: expect.stringContaining(ca),
  });
});

test("an authority beside the one that was meant is not believed", async () => {
  const meant = selfSigned({ commonName: "meant" }).cert;
  const both = Buffer.from(`${meant}${server.cert}`).toString("base64");
  const kubeconfig = `clusters: [{ name: "", cluster: { server: "${url}", certificate-authority-data: ${both} } }]`;
  api.objects.set(INFO, { metadata: {}, data: { kubeconfig } });
  const key = new X509Certificate(meant).publicKey.export({ type: "spki", format: "der" });
  const caCertHash = `sha256:${createHash("sha256").update(key).digest("hex")}`;
  const dir = join(place.path, "beside");
  const joining = { url, token: TOKEN, caCertHash, name: "host-1", dir, signal };
  await expect(joinCluster(joining)).rejects.toMatchObject({ code: "ERR_NODE_API" });
  expect(api.asked.filter(({ authorization }) => authorization !== "")).toEqual([]);
});

test("a certificate that is about to end is replaced, and used from then on", async () => {
  const old = selfSigned({ commonName: "system:node:host-1", organization: "system:nodes" }, 0.001);
  const identity = identityOf({ url, ca: server.cert, cert: old.cert, key: old.key });
  const before = identity.tls();
  const over = new AbortController();
  const kube = new KubeClient(identity);
  const directory = join(place.path, "rotated");
  const rotating = rotate(identity, kube, directory, QUIET, over.signal);
  await api.until("it is replaced", () => identity.cert === client.cert);
  over.abort();
  await rotating;
  kube.close();
  expect(identity.tls()).not.toBe(before);
  expect(await joinedIdentity(directory)).toMatchObject({ cert: client.cert });
});
