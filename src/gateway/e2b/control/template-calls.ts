/** The calls about templates: made, built, named by tags, removed. */
import { randomUUID } from "node:crypto";
import * as z from "zod";
import { validate } from "../../../schema/api.ts";
import type { Caller } from "../../access/gate.ts";
import { E2bError } from "../errors.ts";
import { buildSchema } from "./builds.ts";
import type { Builds } from "./builds.ts";
import type { ControlContext } from "./context.ts";
import { findTemplate, parseTemplateName, takeTags } from "./store.ts";
import type { KnownTemplate, Remembered, TemplateBuild } from "./store.ts";

/** Most builds that a template keeps; the oldest without a tag go. */
const MAX_BUILDS = 100;

const text = z.string().min(1).max(300);
const tags = z.array(text).max(100);
const makeSchema = z.object({
  name: text.optional(),
  alias: text.optional(),
  tags: tags.nullish(),
  cpuCount: z.int().min(1).max(32).nullish(),
  memoryMB: z
    .int()
    .min(128)
    .max(1 << 20)
    .nullish(),
});
const tagSchema = z.object({ target: text, tags });
const untagSchema = z.object({ name: text, tags });

/** A template of the caller's. @throws not_found */
function own(remembered: Remembered, caller: Caller, ref: string): KnownTemplate {
  const found = findTemplate(remembered, caller, ref)?.template;
  if (found !== undefined) return found;
  throw new E2bError("not_found", `template '${ref.slice(0, 200)}' not found`);
}

/** What clients are told of a template. */
function view(template: KnownTemplate): object {
  const { id, name, createdAt, builds } = template;
  const latest = builds.at(-1);
  return {
    templateID: id,
    buildID: latest?.id ?? "",
    buildStatus: latest?.status ?? "waiting",
    cpuCount: latest?.vcpus ?? 1,
    memoryMB: latest?.memMib ?? 512,
    diskSizeMB: 10_240,
    public: false,
    aliases: [name],
    names: [`${template.project}/${name}`],
    createdAt,
    updatedAt: latest?.createdAt ?? createdAt,
    createdBy: null,
    lastSpawnedAt: null,
    spawnCount: 0,
    buildCount: builds.length,
    envdVersion: "0.6.4",
  };
}

/** Make a template, or another build of one. */
export async function makeTemplate(
  { store, vmsan }: ControlContext,
  caller: Caller,
  body: unknown,
): Promise<object> {
  const wish = validate(makeSchema, body, "template");
  const { project } = caller.key;
  const { name, tag } = parseTemplateName(wish.name ?? wish.alias ?? "", project);
  const named = [...new Set([tag ?? "default", ...(wish.tags ?? [])])];
  for (const one of named) parseTemplateName(`${name}:${one}`, project);
  const { reply, dropped } = await store.change(({ templates }) => {
    const createdAt = new Date().toISOString();
    let template = templates.find((one) => one.project === project && one.name === name);
    if (template === undefined) {
      const id = `tpl-${randomUUID().replaceAll("-", "").slice(0, 16)}`;
      template = { id, project, name, createdAt, tags: {}, builds: [] };
      templates.push(template);
    }
    const build = {
      id: randomUUID(),
      createdAt,
      status: "waiting" as const,
      ...(wish.cpuCount ? { vcpus: wish.cpuCount } : {}),
      ...(wish.memoryMB ? { memMib: wish.memoryMB } : {}),
      wanted: named,
      env: [],
    };
    template.builds.push(build);
    takeTags(template, build);
    const kept = new Set(Object.values(template.tags).map(({ buildID }) => buildID));
    const { builds } = template;
    template.builds = builds.filter(({ id }, i) => kept.has(id) || i >= builds.length - MAX_BUILDS);
    const stay = new Set(template.builds);
    const names = [`${project}/${name}`];
    return {
      dropped: builds.filter((one) => !stay.has(one)),
      reply: {
        templateID: template.id,
        buildID: build.id,
        public: false,
        names,
        tags: named,
        aliases: [name],
      },
    };
  });
  await removeSnapshots(vmsan, dropped);
  return reply;
}

/** Remove what builds that are no more have left. */
async function removeSnapshots(
  vmsan: ControlContext["vmsan"],
  builds: readonly Pick<TemplateBuild, "snapshot">[],
): Promise<void> {
  for (const { snapshot } of builds) {
    // Another's removal may have been first.
    if (snapshot !== undefined) await vmsan.snapshots.remove(snapshot).catch(() => undefined);
  }
}

/** Where the files of a build's step go, and whether they are there already. @throws not_found */
export async function placeForFiles(
  { store, uploads }: ControlContext,
  caller: Caller,
  ref: string,
  { hash, origin }: { hash: string; origin: string },
): Promise<object> {
  own(await store.load(), caller, ref);
  const { key } = caller;
  const present = await uploads.has(key.project, hash);
  return { present, url: uploads.url(origin, key, hash) };
}

/** What a call about builds works with. */
interface Building {
  context: ControlContext;
  builds: Builds;
}

/** Begin a build of a template. @throws not_found, invalid_argument */
export async function beginBuild(
  { context, builds }: Building,
  caller: Caller,
  { id, build }: { id: string; build: string },
  body: () => Promise<object>,
): Promise<void> {
  const template = own(await context.store.load(), caller, id);
  await builds.begin(caller, template, build, validate(buildSchema, await body(), "build"));
}

/** How far a build is. @param query `logsOffset`: lines that are known @throws not_found */
export async function buildStatus(
  { context, builds }: Building,
  caller: Caller,
  { id, build }: { id: string; build: string },
  query: URLSearchParams,
): Promise<object> {
  const template = own(await context.store.load(), caller, id);
  const offset = Math.max(0, Number(query.get("logsOffset") ?? 0) || 0);
  return await builds.status(template.id, build, offset);
}

/** A template's tags. @throws not_found */
export async function listTags(
  { store }: ControlContext,
  caller: Caller,
  ref: string,
): Promise<object[]> {
  const { tags: known } = own(await store.load(), caller, ref);
  return Object.entries(known).map(([tag, meaning]) => ({ tag, ...meaning }));
}

/** Templates of the caller's. */
export async function listTemplates({ store }: ControlContext, caller: Caller): Promise<object[]> {
  const { templates } = await store.load();
  return templates
    .filter(({ project }) => caller.key.admin || project === caller.key.project)
    .map(view);
}

/** Remove a template with its snapshots. @returns false when the caller has none of that name */
export async function removeTemplate(
  { store, vmsan }: ControlContext,
  caller: Caller,
  ref: string,
): Promise<boolean> {
  const found = findTemplate(await store.load(), caller, ref)?.template;
  if (found === undefined) return false;
  await removeSnapshots(vmsan, found.builds);
  await store.change((remembered) => {
    remembered.templates = remembered.templates.filter(({ id }) => id !== found.id);
  });
  return true;
}

/** Give a build more tags. @throws not_found, invalid_argument */
export async function assignTags(
  { store }: ControlContext,
  caller: Caller,
  body: unknown,
): Promise<object> {
  const wish = validate(tagSchema, body, "tags");
  const { name, tag = "default" } = parseTemplateName(wish.target, caller.key.project);
  for (const one of wish.tags) parseTemplateName(`${name}:${one}`, caller.key.project);
  return await store.change((remembered) => {
    const template = own(remembered, caller, name);
    const meaning = template.tags[tag];
    if (meaning === undefined) throw new E2bError("not_found", `tag '${tag}' not found`);
    const createdAt = new Date().toISOString();
    for (const one of wish.tags) template.tags[one] = { buildID: meaning.buildID, createdAt };
    return { tags: wish.tags, buildID: meaning.buildID };
  });
}

/** Take tags away. @throws not_found */
export async function removeTags(
  { store }: ControlContext,
  caller: Caller,
  body: unknown,
): Promise<void> {
  const wish = validate(untagSchema, body, "tags");
  const { name } = parseTemplateName(wish.name, caller.key.project);
  await store.change((remembered) => {
    const template = own(remembered, caller, name);
    for (const tag of wish.tags) {
      if (!Object.hasOwn(template.tags, tag))
        throw new E2bError("not_found", `tag '${tag}' not found`);
      template.tags = Object.fromEntries(
        Object.entries(template.tags).filter(([one]) => one !== tag),
      );
    }
  });
}
