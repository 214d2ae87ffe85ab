/**
 * What the gateway remembers of E2B's nouns that VMs and snapshots cannot carry: whose snapshots are, and
 * what they are called, and
 * templates with their builds. One file, read again whenever it changed; all gateways of a directory share it.
 */
import { mkdir, readFile, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import { errnoOf } from "../../../model/errors.ts";
import type { GatewayKey } from "../../../model/gateway.ts";
import { validate } from "../../../schema/api.ts";
import { writeFileAtomic } from "../../../util/atomic.ts";
import { withLock } from "../../../util/lock.ts";
import type { Caller } from "../../access/gate.ts";
import { E2bError } from "../errors.ts";
import { bareName } from "./pages.ts";

/** Most snapshots, and most templates, of all projects. */
const MAX_ENTRIES = 10_000;
/** Most of one project, so that none takes the place of others. */
const MAX_OF_PROJECT = { snapshots: 1_000, templates: 500, builds: 2_000, tags: 2_000 };
/** Most characters of what one project has written into it. */
const MAX_PROJECT_CHARACTERS = 4 << 20;

const text = z.string().max(4096);
/** What a build may say of an environment. */
const long = z.string().max(131_072);

const snapshotSchema = z.object({
  /** ID of the snapshot in the store. */
  id: text,
  project: text,
  name: text.optional(),
  sandboxID: text,
  createdAt: text,
});

const buildSchema = z.object({
  id: text,
  createdAt: text,
  vcpus: z.int().optional(),
  memMib: z.int().optional(),
  status: z.enum(["waiting", "building", "ready", "error"]),
  /** Tags that were asked for with it. */
  wanted: z.array(text).optional(),
  reason: z.object({ message: text, step: text.optional() }).optional(),
  /** What sandboxes are made of: exactly one, once it is ready. */
  runtime: text.optional(),
  image: text.optional(),
  snapshot: text.optional(),
  env: z.array(long).optional(),
  user: text.optional(),
  workdir: text.optional(),
});

const templateSchema = z.object({
  id: text,
  project: text,
  name: text,
  createdAt: text,
  /** Tags and the builds that they mean. */
  tags: z.record(z.string(), z.object({ buildID: text, createdAt: text })),
  builds: z.array(buildSchema),
});

const fileSchema = z.object({
  version: z.literal(1),
  snapshots: z.array(snapshotSchema).max(MAX_ENTRIES).default([]),
  templates: z.array(templateSchema).max(MAX_ENTRIES).default([]),
});

/** A snapshot and whose it is. */
export type KnownSnapshot = z.infer<typeof snapshotSchema>;
/** One build of a template. */
export type TemplateBuild = z.infer<typeof buildSchema>;
/** A template with its builds. */
export type KnownTemplate = z.infer<typeof templateSchema>;
/** All that is remembered. */
export type Remembered = z.infer<typeof fileSchema>;

/**
 * Whether a key means this by a name or ID. An admin's key means another project's by its ID or with the project before the name:
 * a bare one is the own project's or nobody's, or anybody could have `base` mean something else for admins.
 */
export function isMeant(
  { admin, project }: Pick<GatewayKey, "admin" | "project">,
  one: { id: string; name?: string | undefined; project: string },
  ref: string,
): boolean {
  if (!admin && one.project !== project) return false;
  if (ref === one.id) return true;
  const full = one.project === project || ref.startsWith(`${one.project}/`);
  return full && one.name !== undefined && bareName(ref, one.project) === one.name;
}

/** Whether a snapshot has a name or ID as clients write it. */
export function isSnapshotNamed({ id, name, project }: KnownSnapshot, ref: string): boolean {
  const bare = bareName(ref, project);
  return ref === id || (name !== undefined && bare === name);
}

const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** A template's name and tag as clients write them: `NAME`, `NAME:TAG`, the project before. @throws invalid_argument */
export function parseTemplateName(text: string, project: string): { name: string; tag?: string } {
  const [whole = "", tag, ...more] = text.split(":");
  const name = whole.startsWith(`${project}/`) ? whole.slice(project.length + 1) : whole;
  if (more.length > 0 || !NAME.test(name) || (tag !== undefined && !NAME.test(tag)))
    throw new E2bError("invalid_argument", `'${text.slice(0, 200)}' is no name of a template`);
  return { name, ...(tag === undefined ? {} : { tag }) };
}

/** The template that a caller means by its ID or name, and the build by the tag. */
export function findTemplate(
  { templates }: Remembered,
  { key }: Caller,
  ref: string,
): { template: KnownTemplate; build?: TemplateBuild } | undefined {
  const [, whole = "", tag = "default"] = /^([^:]*)(?::([^:]*))?$/.exec(ref) ?? [];
  const template = templates.find((one) => isMeant(key, one, whole));
  const meaning = template?.tags[tag]?.buildID;
  const build = template?.builds.find(({ id }) => id === meaning);
  if (template === undefined) return undefined;
  return { template, ...(build === undefined ? {} : { build }) };
}

/**
 * Have a build meant by the tags that were asked for with it. A build that can be used stays meant by them until the
 * new one can, and if that fails; of two the later one is.
 */
export function takeTags({ tags, builds }: KnownTemplate, build: TemplateBuild): void {
  const isReady = (one: TemplateBuild | undefined): boolean => one?.status === "ready";
  for (const tag of build.wanted ?? []) {
    const at = builds.findIndex(({ id }) => id === tags[tag]?.buildID);
    const later = at <= builds.indexOf(build);
    if (isReady(builds[at]) ? isReady(build) && later : isReady(build) || later) {
      tags[tag] = { buildID: build.id, createdAt: build.createdAt };
    }
  }
}

/** What would not be read again, or is too much for one project, is not written. @throws resource_exhausted, invalid_argument */
function check(remembered: Remembered, before: ReadonlyMap<string, number>): void {
  const parsed = fileSchema.safeParse(remembered);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const what = `${issue?.path.slice(-2).join(".")}: ${issue?.message}`;
    throw new E2bError("invalid_argument", `cannot be remembered: ${what}`);
  }
  for (const [project, characters] of weights(remembered)) {
    // Who has too much already may have less.
    if (characters <= (before.get(project) ?? 0)) continue;
    const templates = remembered.templates.filter((one) => one.project === project);
    const counts = {
      snapshots: remembered.snapshots.filter((one) => one.project === project).length,
      templates: templates.length,
      builds: templates.reduce((sum, { builds }) => sum + builds.length, 0),
      tags: templates.reduce((sum, { tags }) => sum + Object.keys(tags).length, 0),
    };
    const names = Object.keys(MAX_OF_PROJECT) as (keyof typeof MAX_OF_PROJECT)[];
    const over = names.find((name) => counts[name] > MAX_OF_PROJECT[name]);
    if (over !== undefined || characters > MAX_PROJECT_CHARACTERS) {
      const what = over === undefined ? "text" : `${over} (${MAX_OF_PROJECT[over]})`;
      throw new E2bError("resource_exhausted", `the project has too many templates: ${what}`, 403);
    }
  }
}

/** How much of it each project's is, in characters. */
function weights({ snapshots, templates }: Remembered): Map<string, number> {
  const sums = new Map<string, number>();
  for (const one of [...snapshots, ...templates])
    sums.set(one.project, (sums.get(one.project) ?? 0) + JSON.stringify(one).length);
  return sums;
}

/** The file of one gateway directory. */
export class E2bStore {
  private readonly path: string;
  private cached: { stamp: string; remembered: Remembered } | undefined;

  /** @param directory absolute path of the gateway's files */
  constructor(directory: string) {
    this.path = join(directory, "e2b.json");
  }

  /** What is remembered now; not to be changed. */
  async load(): Promise<Remembered> {
    const stamp = await this.stamp();
    if (this.cached?.stamp !== stamp) this.cached = { stamp, remembered: await this.read() };
    return this.cached.remembered;
  }

  /** Every rename into place gives another inode, so this changes with the content. */
  private async stamp(): Promise<string> {
    try {
      const { ino, mtimeNs, size } = await stat(this.path, { bigint: true });
      return `${ino}.${mtimeNs}.${size}`;
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      return "";
    }
  }

  private async read(): Promise<Remembered> {
    let content: string;
    try {
      content = await readFile(this.path, "utf8");
    } catch (error) {
      if (errnoOf(error) !== "ENOENT") throw error;
      return { version: 1, snapshots: [], templates: [] };
    }
    const what = `file of templates ${this.path}`;
    return validate(fileSchema, JSON.parse(content), what, "ERR_GATEWAY_STORE");
  }

  /** Change it; others wait meanwhile. @param body changes its argument; what it throws leaves all as it was */
  async change<T>(body: (remembered: Remembered) => T): Promise<T> {
    await mkdir(dirname(this.path), { recursive: true, mode: 0o700 });
    return await withLock(`${this.path}.lock`, async () => {
      const remembered = await this.read();
      const before = weights(remembered);
      const result = body(remembered);
      check(remembered, before);
      await writeFileAtomic(this.path, `${JSON.stringify(remembered, null, 2)}\n`);
      return result;
    });
  }
}
