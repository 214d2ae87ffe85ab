/**
 * Pulls through the daemon: callers share what comes, interrupts and a killed daemon cost
 * nothing that came, the caller's proxies and the configured mirrors are used, and progress
 * is shown as fits the place.
 */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { connect } from "node:net";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { startRegistry } from "../../registry/docker-registry.ts";
import { serveFaulty } from "../../registry/faulty.ts";
import type { FaultyRegistry } from "../../registry/faulty.ts";
import { makeImage, noise, tarOf, writeLayout } from "../../registry/fixture.ts";
import { tool } from "../images.ts";
import { errorCode, vmsan, vmsanBin, vmsanJson, vmsanOk } from "../support.ts";
import type { Outcome } from "../support.ts";

const LARGE = 4_000_000;
const image = makeImage({
  layers: [tarOf("large", noise(LARGE, 1)), tarOf("small", noise(999, 2))],
});
const blobs = [image.config, ...image.layers];

const here = installation("nothing");
const work = temporary();
let registry: FaultyRegistry;

beforeAll(async () => {
  registry = await serveFaulty(image);
});
afterAll(() => registry.stop());
beforeEach(async () => {
  await vmsanOk(["image", "prune", "--all"], here);
  registry.seen.length = 0;
  registry.sent.clear();
  registry.fault = () => undefined;
});

const name = (): string => `${registry.host}/library/app`;

/** Blobs come slowly: the large one in about two seconds. */
function slowly(): void {
  registry.fault = ({ kind }) =>
    kind === "blob" ? { kind: "slow", bytes: 100_000, everyMs: 50 } : undefined;
}

/** Wait until the registry has seen or sent something. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** Bytes of the large layer that the registry has sent. */
const sentOfLarge = (): number => registry.sent.get(image.layers[0]?.digest ?? "") ?? 0;
const manifestsAsked = (): number => registry.seen.filter(({ kind }) => kind === "manifest").length;
/** More of the layer has come than is written at a time, and most of it has not. */
const inTheMiddle = (): boolean => sentOfLarge() > 1_500_000;

/** Pull in a process of its own, to be interrupted. */
function pulling(): { outcome: Promise<Outcome>; interrupt: () => void } {
  let interrupt = (): void => undefined;
  const outcome = vmsan(["image", "pull", name()], {
    dir: here.dir,
    onProcess: (child) => (interrupt = () => child.kill("SIGINT")),
  });
  return { outcome, interrupt: () => interrupt() };
}

test("two pulls at once fetch each blob once", async () => {
  slowly();
  const both = await Promise.all([pulling().outcome, pulling().outcome]);
  expect(both.map(({ code }) => code)).toEqual([0, 0]);
  expect(manifestsAsked()).toBe(2);
  for (const { digest } of blobs) {
    expect(registry.seen.filter(({ path }) => path.endsWith(digest))).toHaveLength(1);
  }
});

test("an interrupted pull leaves the other one, which goes on where it was", async () => {
  slowly();
  const first = pulling();
  await until(inTheMiddle);
  const second = pulling();
  await until(() => manifestsAsked() === 2);
  first.interrupt();
  expect((await first.outcome).code).toBe(130);
  expect(await second.outcome).toMatchObject({ code: 0 });
  const ranges = registry.seen.filter(({ range }) => range !== undefined);
  expect(ranges).toHaveLength(1);
  expect(Number(/bytes=(\d+)-/.exec(ranges[0]?.range ?? "")?.[1])).toBeGreaterThan(0);
});

test("a daemon killed in the middle: the pull goes on with the next one", async () => {
  slowly();
  const first = pulling();
  await until(inTheMiddle);
  const { pid } = await vmsanJson<{ pid: number }>(["daemon", "status"], here);
  process.kill(pid, "SIGKILL");
  expect(await first.outcome).toMatchObject({ code: 0 });
  const [range] = registry.seen.filter((seen) => seen.range !== undefined);
  const from = Number(/bytes=(\d+)-/.exec(range?.range ?? "")?.[1]);
  expect(from).toBeGreaterThan(0);
  expect(await vmsanJson(["image", "inspect", name()], here)).toMatchObject({
    digest: image.manifest.digest,
    complete: true,
  });
});

test("mirrors of the registries file are asked first", async () => {
  const file = join(here.dir, "registries.json");
  await writeFile(file, JSON.stringify({ mirrors: { "docker.io": [`http://${registry.host}`] } }));
  try {
    const pulled = await vmsanJson(["image", "pull", "app"], here);
    expect(pulled).toMatchObject({ names: ["docker.io/library/app:latest"] });
    expect(manifestsAsked()).toBe(1);
    await writeFile(file, '{"mirrors": 1}');
    expect(await errorCode(["image", "pull", "app"], here)).toBe("ERR_IMAGE_REGISTRIES_FILE");
  } finally {
    await rm(file);
  }
});

test("the caller's proxy is used, with its password, and the daemon's own environment is not", async () => {
  const secure = await startRegistry({ tls: true });
  const asked: { target: string; authorization: string | undefined }[] = [];
  const port = secure.host.split(":")[1] ?? "";
  const proxy = createServer();
  proxy.on("connect", (request, socket) => {
    asked.push({
      target: request.url ?? "",
      authorization: request.headers["proxy-authorization"],
    });
    // Names are the proxy's affair: this one leads everything to the test's registry.
    const upstream = connect(Number(port), "127.0.0.1", () => {
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      upstream.pipe(socket).pipe(upstream);
    });
    for (const end of [socket, upstream]) end.on("error", () => upstream.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const { port: proxyPort } = proxy.address() as AddressInfo;
  try {
    const layout = join(work.path, "layout");
    await mkdir(layout);
    writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
    await mkdir(join(work.path, "certs"));
    await tool("cp", secure.caFile ?? "", join(work.path, "certs/ca.crt"));
    const flags = ["-q", "--dest-cert-dir", join(work.path, "certs")];
    await tool("skopeo", "copy", ...flags, `oci:${layout}:x`, `docker://${secure.host}/a/b:1`);
    const pull = ["image", "pull", "--ca-file", secure.caFile ?? "", `named.test:${port}/a/b:1`];
    const env = { HTTPS_PROXY: `http://me:s3cret@127.0.0.1:${proxyPort}` };
    expect(await vmsanOk(pull, { dir: here.dir, env })).toContain(image.manifest.digest);
    expect(new Set(asked.map(({ target }) => target))).toEqual(new Set([`named.test:${port}`]));
    const basic = `Basic ${Buffer.from("me:s3cret").toString("base64")}`;
    expect(asked.every(({ authorization }) => authorization === basic)).toBe(true);
    // What one caller has set is not there for the next, and NO_PROXY wins.
    asked.length = 0;
    expect(await errorCode(pull, here)).toBe("ERR_IMAGE_NETWORK");
    const without = { dir: here.dir, env: { ...env, NO_PROXY: ".test" } };
    expect(await errorCode(pull, without)).toBe("ERR_IMAGE_NETWORK");
    expect(asked).toEqual([]);
    const nonsense = { dir: here.dir, env: { HTTPS_PROXY: "http://me:s3cret@[" } };
    const outcome = await vmsan(["image", ...pull.slice(1)], nonsense);
    expect(outcome.stderr).toContain("ERR_IMAGE_PROXY");
    expect(outcome.stderr + (await vmsanOk(["daemon", "logs"], here))).not.toContain("s3cret");
  } finally {
    proxy.close();
    proxy.closeAllConnections();
    await secure.stop();
  }
});

test("progress: JSON lines, lines of text, and bars on a terminal", async () => {
  slowly();
  const json = await vmsan(["image", "pull", "--json", name()], here);
  const events = json.stderr
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { phase: string; item?: string; done: number });
  for (const { digest, size } of blobs) {
    const own = events.filter(({ item }) => item === digest.slice(7, 19));
    expect(own[0]).toMatchObject({ phase: "pull", done: 0, total: size, unit: "bytes" });
    expect(own.at(-1)).toMatchObject({ phase: "pull", done: size, total: size });
    expect(own.map(({ done }) => done)).toEqual(
      own.map(({ done }) => done).toSorted((a, b) => a - b),
    );
  }
  expect(JSON.parse(json.stdout.toString())).toMatchObject({ digest: image.manifest.digest });

  await vmsanOk(["image", "prune", "--all"], here);
  const text = await vmsan(["image", "pull", name()], here);
  for (const { digest } of blobs) {
    const own = text.stderr.split("\n").filter((line) => line.includes(digest.slice(7, 19)));
    expect(own).toHaveLength(2);
    expect(own[1]).toMatch(/done$/);
  }
  expect(text.stderr).not.toContain("\u001B");
  expect(text.stdout.toString()).toBe(`${image.manifest.digest}\n`);

  await vmsanOk(["image", "prune", "--all"], here);
  const command = `stty cols 60 rows 20; exec ${vmsanBin} image pull ${name()}`;
  const session = await tool(
    "env",
    `VMSAN_DIR=${here.dir}`,
    "script",
    "-qec",
    command,
    "/dev/null",
  );
  const large = image.layers[0]?.digest.slice(7, 19) ?? "";
  expect(session).toMatch(new RegExp(`${large} +\\[#+ +\\] +\\d+%`));
  expect(session).toMatch(/pull +\d of 3/);
  // The bars are gone at the end, and the result stands alone.
  const last = session.slice(session.lastIndexOf("\u001B[J") + 3);
  expect(last.replaceAll("\r", "")).toBe(`${image.manifest.digest}\n`);
  // oxlint-disable-next-line no-control-regex -- the terminal's own control sequences
  const shown = session.replaceAll(/\u001B\[[0-9]*[A-Z]/g, "");
  for (const line of shown.split(/[\r\n]+/)) {
    if (!line.startsWith("sha256:")) expect(line.length).toBeLessThan(60);
  }
});
