/** One case of the corpus by vmsan and by buildah without it: what differs. */
import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect } from "vitest";
import type { Tree } from "../registry/trees.ts";
import { vmsan, vmsanOk } from "../e2e/support.ts";
import { baseImage, makeContext } from "./cases.ts";
import type { Case } from "./cases.ts";
import { Buildah } from "./judge.ts";
import type { Built, Held } from "./judge.ts";

/** Name of the base image of all cases. */
export const BASE = "local.test/bb:1";
/** What no layer may hold. */
export const SECRET = "c0ffee-of-the-secret";
/** A build may have to make the builder first: its image of Debian packages, its VM. */
export const LONG = 900_000 * Number(process.env["VMSAN_TEST_SCALE"] ?? "1");

/** What cases are compared with. */
export interface Bench {
  /** VMSAN_DIR. */
  dir: string;
  /** A directory for contexts and archives. */
  place: string;
  judge: Buildah;
  /** One that knows heredocs: the builder's own, on this host. */
  newer?: Buildah;
  /** Digest of the base image. */
  digest: string;
  /** Port of this host's loopback with a server of files, for cases that need one. */
  port?: number;
}

/** What was found of one case. */
export interface Found {
  ours: Built;
  judged: Built;
  differences: string[];
}

/** Times of before the corpus are the context's and the base's; all others are made by a build. */
const LONG_AGO = 1_600_000_000;

/** An entry as it is compared. */
function comparable(tree: Tree): Map<string, Record<string, unknown>> {
  return new Map(
    Object.entries(tree).map(([path, entry]) => {
      const old = Number(entry.mtime.split(".")[0]) < LONG_AGO;
      return [path, { ...entry, mtime: old ? entry.mtime : "of the build" }];
    }),
  );
}

/** Fields that differ, by path. */
function differencesOf(ours: Held, judged: Held): string[] {
  const found: string[] = [];
  const [left, right] = [comparable(ours.tree), comparable(judged.tree)];
  for (const path of [...new Set([...left.keys(), ...right.keys()])].toSorted()) {
    const [a, b] = [left.get(path), right.get(path)];
    if (a === undefined || b === undefined) {
      found.push(`/${path}: ${a === undefined ? "missing" : "not in the other"}`);
      continue;
    }
    for (const key of new Set([...Object.keys(a), ...Object.keys(b)])) {
      const [x, y] = [JSON.stringify(a[key]), JSON.stringify(b[key])];
      if (x !== y) found.push(`/${path}: ${key} ${x} instead of ${y}`);
    }
  }
  const compare = (at: string, a: unknown, b: unknown): void => {
    if (JSON.stringify(a) === JSON.stringify(b)) return;
    const inner = [a, b].every((side) => typeof side === "object" && side !== null);
    if (!inner) {
      found.push(`${at}: ${JSON.stringify(a)} instead of ${JSON.stringify(b)}`);
      return;
    }
    const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
    for (const key of new Set([...Object.keys(x), ...Object.keys(y)])) {
      compare(`${at}.${key}`, x[key], y[key]);
    }
  };
  compare("config", ours.config, judged.config);
  return found;
}

/** Have all that cases are compared with, below a directory. */
export async function openBench(dir: string, place: string): Promise<Bench> {
  const archive = await baseImage(place, BASE);
  await vmsanOk(["image", "load", "-i", archive], { dir });
  const inspected = await vmsanOk(["image", "inspect", "--json", BASE], { dir });
  const { digest } = JSON.parse(inspected) as { digest: string };
  const judge = new Buildah(join(place, "judge"));
  await mkdir(join(place, "judge"));
  await judge.must("pull", "-q", `oci-archive:${archive}`);
  return { dir, place, judge, digest };
}

/** Build a case both ways and compare. */
export async function compareCase(given: Case, bench: Bench): Promise<Found> {
  const { dir, place } = bench;
  const judge = given.newer === true ? (bench.newer ?? bench.judge) : bench.judge;
  const context = await makeContext(given, place);
  const dockerfile = `${context}.Dockerfile`;
  const secret = join(place, "secret");
  await writeFile(secret, SECRET);
  const flags = [...(given.flags ?? [])];
  if (given.secret === true) flags.push("--secret", `id=s,src=${secret}`);
  if (given.digest === true) flags.push("--build-arg", `DIGEST=${bench.digest}`);
  const server = (host: string): string[] =>
    given.server === true ? ["--build-arg", `SERVER=http://${host}:${bench.port ?? 0}`] : [];
  const name = given.tag ?? `local.test/corpus:${given.name}`;
  const network =
    given.server === true ? ["--allow-host-port", String(bench.port)] : ["--network", "none"];
  const none = given.context === "none";
  const from = none ? ["-"] : given.found === true ? [context] : ["-f", dockerfile, context];
  const words = ["build", ...network, "-t", name, ...flags, ...server("host.vmsan.internal")];
  const input = none ? { input: await readFile(dockerfile) } : {};
  const tag = given.tag === undefined ? [] : ["-t", given.tag];
  // Not at once: a step of buildah's may write to the context (a bind mount with rw).
  const outcome = await vmsan([...words, ...from], { dir, timeoutMs: LONG, ...input });
  // For what this vmsan takes and buildah does not: the same in words of both.
  const plain = `${dockerfile}.plain`;
  const known = existsSync(plain) ? plain : dockerfile;
  const file = given.found === true ? undefined : known;
  const judged = await judge.build(file, context, [...tag, ...flags, ...server("127.0.0.1")]);
  const ours = { code: outcome.code ?? -1, output: outcome.stderr };
  await rm(context, { recursive: true, force: true });
  if (ours.code !== 0 || judged.code !== 0) return { ours, judged, differences: [] };
  const archive = join(place, "saved.tar");
  await vmsanOk(["image", "save", name, "-o", archive, "--format", "oci-archive"], { dir });
  const id = await judge.must("pull", "-q", `oci-archive:${archive}`);
  await rm(archive);
  const [held, other] = [await judge.hold(id), await judge.hold(judged.id)];
  const told = (difference: string): boolean =>
    given.differs?.some((where) => difference.startsWith(where)) === true;
  const differences = differencesOf(held, other).filter((difference) => !told(difference));
  return { ours, judged, differences };
}

/** A case is built alike, or fails alike and says why. */
export function expectSame(given: Case, { ours, judged, differences }: Found): void {
  if (given.fails !== undefined) {
    const failed = [ours.code, judged.code].map((code) => code !== 0);
    expect(failed).toEqual([true, given.overlay !== true]);
    expect(ours.output).toContain(given.fails);
    return;
  }
  for (const { code, output } of [ours, judged]) {
    expect({ code, output: code === 0 ? "" : output }).toEqual({ code: 0, output: "" });
  }
  expect(differences).toEqual([]);
}
