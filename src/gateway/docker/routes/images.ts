/** Routes below /images, and of commits. */
import type { Container } from "../containers/container.ts";
import type { HealthConfig } from "../../../schema/docker.ts";
import type { Engine } from "../engine.ts";
import { DockerError } from "../errors.ts";
import { untilOf } from "../http/moments.ts";
import { done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import type { KnownImage } from "../images/catalogue.ts";
import { joinName, shortId, withTag } from "../images/names.ts";
import { buildImage, pruneBuilds } from "../images/build.ts";
import { changesOf, createImage, load, pushImage, save } from "../images/transfer.ts";
import { absent } from "./absent.ts";
import {
  IMAGE_FILTERS,
  createdOf,
  imageView,
  isWantedImage,
  summaryOf,
  withWantedNames,
} from "../images/view.ts";

const imageOf = async ({ engine, params }: Call): Promise<KnownImage> =>
  await engine.catalogue.find(params["name"] ?? "");

/** Remove what has no name any more, and that no container is made of. @returns bytes */
async function pruneUnnamed(engine: Engine): Promise<number> {
  // A container that has just gone holds its image no more.
  await engine.holdImages();
  return (await engine.vmsan.images.prune()).freedBytes;
}

/** The engine's text for an image that is looked at. */
async function inspected(call: Call): Promise<KnownImage> {
  try {
    return await imageOf(call);
  } catch (error) {
    if (!(error instanceof DockerError) || error.status !== 404) throw error;
    const name = call.params["name"] ?? "";
    throw new DockerError(404, `no such image: ${name.slice(0, 200)}: ${error.message}`, error);
  }
}

function userOf(engine: Engine, image: KnownImage): Container | undefined {
  return engine.containers.find(({ record }) => record.image.id === image.id);
}

/** Take a name away, or all of them, and what nobody needs then. @throws 404, 409 */
async function remove(call: Call): Promise<void> {
  const { engine, query, params } = call;
  const ref = params["name"] ?? "";
  const image = await imageOf(call);
  const force = query.flag("force");
  const byId = !image.names.some((name) => withTag(ref) === name || ref === name);
  if (byId && image.names.length > 1 && !force) {
    throw new DockerError(
      409,
      `conflict: unable to delete ${shortId(image.id)} (must be forced) - image is referenced in multiple repositories`,
    );
  }
  const going = byId ? image.names : [withTag(ref)];
  const user = userOf(engine, image);
  const last = going.length === image.names.length;
  if (user !== undefined && last && (!force || user.active)) {
    const how = user.active ? "cannot be forced" : "must be forced";
    const state = user.active ? "running container" : "container";
    throw new DockerError(
      409,
      byId
        ? `conflict: unable to delete ${shortId(image.id)} (${how}) - image is being used by ${state} ${shortId(user.id)}`
        : `conflict: unable to remove repository reference "${ref}" (must force) - container ${shortId(user.id)} is using its referenced image ${shortId(image.id)}`,
    );
  }
  const gone: object[] = [];
  await engine.holdImages();
  for (const name of going) {
    await engine.vmsan.images.remove(name, { keepHeld: force });
    gone.push({ Untagged: name });
    engine.events.emit("image", "untag", image.id, { name });
  }
  if (last && user === undefined) {
    await pruneUnnamed(engine);
    gone.push({ Deleted: image.id });
    engine.events.emit("image", "delete", image.id, { name: image.id });
  }
  reply(call, gone);
}

/** Remove what nothing uses: with `dangling=false` also what has a name. */
async function prune(call: Call): Promise<void> {
  const { engine, query } = call;
  const filters = query.filters().only(["dangling", "label", "label!", "until"]);
  const until = untilOf(filters);
  const gone: object[] = [];
  if (filters.of("dangling")?.every((value) => ["false", "0"].includes(value)) === true) {
    for (const image of await engine.catalogue.all()) {
      const inUse = userOf(engine, image) !== undefined || image.view.usedBy.length > 0;
      if (inUse || !filters.allowsLabels(image.details.config.labels)) continue;
      if (createdOf(image) > until) continue;
      for (const name of image.names) {
        await engine.vmsan.images.remove(name);
        gone.push({ Untagged: name });
      }
    }
  }
  reply(call, {
    ImagesDeleted: gone.length === 0 ? null : gone,
    SpaceReclaimed: await pruneUnnamed(engine),
  });
}

/** A text as an instruction takes it whole. */
const quoted = (text: string): string => `"${text.replaceAll(/["\\$]/g, "\\$&")}"`;

/** A list as an instruction takes it; none stands for one without words. */
const listed = (words: readonly string[] | null): string => JSON.stringify(words ?? []);

/** The instruction that gives an image a container's health check; none for one that says nothing. */
function healthInstruction(health: HealthConfig): string[] {
  const [kind, ...words] = health.Test ?? [];
  if (kind === undefined) return [];
  if (kind === "NONE") return ["HEALTHCHECK NONE"];
  const times: [string, number | null | undefined][] = [
    ["interval", health.Interval],
    ["timeout", health.Timeout],
    ["start-period", health.StartPeriod],
    ["start-interval", health.StartInterval],
  ];
  const options = times.flatMap(([name, ns]) => (ns ? [`--${name}=${ns}ns`] : []));
  if (health.Retries) options.push(`--retries=${health.Retries}`);
  const command = kind === "CMD" ? listed(words) : words.join(" ");
  return [["HEALTHCHECK", ...options, "CMD", command].join(" ")];
}

/** Instructions that give an image the configuration of a container. */
function instructionsOf({ record }: Container): string[] {
  const { config } = record;
  const variables = record.env.filter((entry) => entry.includes("="));
  return [
    ...variables.map((entry) => {
      const at = entry.indexOf("=");
      return `ENV ${entry.slice(0, at)}=${quoted(entry.slice(at + 1))}`;
    }),
    ...Object.entries(config.Labels).map(([key, value]) => `LABEL ${quoted(key)}=${quoted(value)}`),
    ...Object.keys(config.ExposedPorts).map((port) => `EXPOSE ${port}`),
    ...Object.keys(config.Volumes ?? {}).map((path) => `VOLUME ${listed([path])}`),
    `ENTRYPOINT ${listed(config.Entrypoint)}`,
    `CMD ${listed(config.Cmd)}`,
    ...(config.WorkingDir === "" ? [] : [`WORKDIR ${config.WorkingDir}`]),
    ...(config.User === "" ? [] : [`USER ${config.User}`]),
    ...(config.StopSignal === undefined ? [] : [`STOPSIGNAL ${config.StopSignal}`]),
    ...(config.Healthcheck === undefined ? [] : healthInstruction(config.Healthcheck)),
  ];
}

/** An image of a container's changes. */
async function commit(call: Call): Promise<void> {
  const { engine, query } = call;
  call.request.resume();
  const container = engine.find(query.text("container"));
  const repository = query.text("repo");
  const name =
    repository === ""
      ? `localhost/committed:${shortId(container.id)}-${Date.now()}`
      : joinName(repository, query.text("tag"));
  const changes = [...instructionsOf(container), ...changesOf(query)];
  const report = await container.withFiles(
    async (vm) =>
      await vm.commit(name, {
        changes,
        message: query.text("comment"),
        author: query.text("author"),
      }),
  );
  const image = await engine.catalogue.find(report.name);
  container.tell("commit", { comment: query.text("comment") });
  reply(call, { Id: image.id }, 201);
}

/** The steps of an image's making. */
async function history(call: Call): Promise<void> {
  const image = await imageOf(call);
  const steps = await call.engine.vmsan.images.history(image.digest);
  reply(
    call,
    steps.map(({ created, createdBy, comment, layer }, index) => ({
      Id: index === 0 ? image.id : "<missing>",
      Created: created === undefined ? 0 : Math.floor(Date.parse(created) / 1000),
      CreatedBy: createdBy,
      Tags: index === 0 ? image.names : null,
      Size: layer?.size ?? 0,
      Comment: comment,
    })),
  );
}

/** The table. */
export const imageRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/images/json",
    says: "works",
    run: async (call) => {
      const { engine, query } = call;
      const filters = query.filters().only(IMAGE_FILTERS);
      const all = await engine.catalogue.all();
      const shown = all.filter((image) => isWantedImage(image, filters, all));
      const counts = (id: string): number =>
        engine.containers.filter(({ record }) => record.image.id === id).length;
      reply(
        call,
        shown.map((image) => summaryOf(withWantedNames(image, filters), counts(image.id))),
      );
    },
  },
  {
    method: "POST",
    path: "/images/create",
    says: "differs",
    note: "pulls; `docker import` takes files and standard input, no addresses",
    run: createImage,
  },
  { method: "POST", path: "/images/load", says: "works", run: load },
  { method: "POST", path: "/images/prune", says: "works", run: prune },
  { method: "GET", path: "/images/get", says: "works", run: save },
  absent("GET", "/images/search", "vmsan asks registries for images by name alone", {
    said: "searching a registry is not offered: vmsan asks registries for images by name alone",
  }),
  { method: "GET", path: "/images/:name/get", says: "works", run: save },
  {
    method: "GET",
    path: "/images/:name/json",
    says: "works",
    run: async (call) => reply(call, imageView(await inspected(call))),
  },
  { method: "GET", path: "/images/:name/history", says: "works", run: history },
  { method: "POST", path: "/images/:name/push", says: "works", run: pushImage },
  {
    method: "POST",
    path: "/images/:name/tag",
    says: "works",
    run: async (call) => {
      const image = await imageOf(call);
      const name = joinName(call.query.text("repo"), call.query.text("tag"));
      await call.engine.vmsan.images.tag(image.digest, name);
      call.engine.events.emit("image", "tag", image.id, { name: withTag(name) });
      done(call, 201);
    },
  },
  {
    method: "POST",
    path: "/build",
    says: "differs",
    note: "the classic builder, by buildah in a VM of its own (docs/build.md); contexts are archives",
    run: buildImage,
  },
  {
    method: "POST",
    path: "/build/prune",
    says: "differs",
    note: "all of the builder's cache goes, or nothing of it",
    run: pruneBuilds,
  },
  {
    method: "POST",
    path: "/session",
    says: "differs",
    note: "of buildx: files of the context and secrets; no ssh, no output of files",
    hijacks: true,
    run: async (call) =>
      await call.engine.buildkit.session(call.request, async () => await call.http2()),
  },
  {
    method: "POST",
    path: "/grpc",
    says: "differs",
    note: "what buildx's driver `docker` needs: Dockerfiles, by the same builds",
    hijacks: true,
    run: async (call) => await call.engine.buildkit.serve(await call.http2()),
  },
  { method: "DELETE", path: "/images/:name", says: "works", run: remove },
  { method: "POST", path: "/commit", says: "works", run: commit },
  absent("GET", "/distribution/:name/json", "pull it, and look at it here", {
    said: "an image is not looked at in its registry: pull it, and look at it here",
  }),
];
