/** `POST /build`: an image of a Dockerfile in an archive, as the classic builder makes it. */
import { keepArchive, textIn } from "../../../client/builds/archive.ts";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import { VmsanError } from "../../../model/errors.ts";
import { validate } from "../../../schema/api.ts";
import { buildArgsSchema, stringMapSchema } from "../../../schema/docker.ts";
import { DockerError, asDockerError } from "../errors.ts";
import { untilOf } from "../http/moments.ts";
import { Lines, signalOf } from "../http/lines.ts";
import { reply } from "../http/route.ts";
import type { Call } from "../http/route.ts";
import { parseJson } from "../http/wire.ts";
import { addedHosts } from "./hosts.ts";
import { shortId, withTag } from "./names.ts";

/** A query's map of strings. */
function mapOf(call: Call, name: string): Record<string, string> {
  const text = call.query.text(name);
  return text === "" ? {} : validate(stringMapSchema, parseJson(text), name);
}

/** Values of ARGs; those without one have what the Dockerfile says. */
function argsOf(call: Call): Record<string, string> {
  const text = call.query.text("buildargs");
  const given = text === "" ? {} : validate(buildArgsSchema, parseJson(text), "buildargs");
  const pairs = Object.entries(given).flatMap(([name, value]) =>
    value === null ? [] : [[name, value] as const],
  );
  return Object.fromEntries(pairs);
}

/** What a call says of its build besides the files. */
function optionsOf(call: Call): Omit<BuildOptions, "archive" | "dockerfile"> {
  const { query } = call;
  const target = query.text("target");
  const platform = query.text("platform");
  return {
    tags: query.all("t").filter((tag) => tag !== ""),
    buildArgs: argsOf(call),
    labels: mapOf(call, "labels"),
    addHosts: addedHosts(query.all("extrahosts")),
    noCache: query.flag("nocache"),
    pull: query.flag("pull") ? "always" : "missing",
    ...(target === "" ? {} : { target }),
    ...(platform === "" ? {} : { platform }),
    ...(query.text("networkmode") === "none" ? { networkPolicy: "deny-all" } : {}),
  };
}

/** Refuse what would make another image than is asked for. @throws 400, 501 */
function refuseUnserved({ query }: Call): void {
  if (query.text("remote") !== "") {
    throw new DockerError(400, "building from an address is not possible here: send the files");
  }
  if (query.text("version") === "2")
    throw new DockerError(400, "there is no BuildKit here: DOCKER_BUILDKIT=0");
  const refused: Record<string, boolean> = {
    "--squash": query.flag("squash"),
    "--output": query.text("outputs") !== "",
    "--network container:NAME": query.text("networkmode").startsWith("container:"),
  };
  const word = Object.keys(refused).find((name) => refused[name] === true);
  if (word !== undefined) throw new DockerError(501, `${word} is not possible here: leave it out`);
}

/** The status of the command that ended a build, where one has. */
function codeOf(message: string): number {
  return Number(/exit(?:ed with)? (?:status|code)[: ]+(\d{1,3})/.exec(message)?.[1] ?? 1);
}

/** What the last line of a build that has failed says; clients look for Docker's sentence about a command. */
export function failureOf(error: unknown): object {
  const { message: whole } = asDockerError(error);
  const code = codeOf(whole);
  const step =
    error instanceof VmsanError && error.code === "ERR_BUILD_FAILED" ? error.message : "";
  // Of a command in a shell: lists of words, options and here-documents are told as they are.
  const command = /STEP \d+\/\d+: RUN (?!\[|--|<<)(.+)$/s.exec(step)?.[1];
  const said =
    command === undefined
      ? ""
      : `The command '/bin/sh -c ${command}' returned a non-zero code: ${code}\n`;
  const message = `${said}${whole}`;
  return { errorDetail: { code, message }, error: message };
}

/** Build. What fails once the files are there is told in the last line of a reply of 200, as clients expect it. */
export async function buildImage(call: Call): Promise<void> {
  const { engine, request, query } = call;
  refuseUnserved(call);
  const options = optionsOf(call);
  const lines = new Lines(call);
  const signal = signalOf(call);
  const kept = await keepArchive(request as AsyncIterable<Buffer>, { near: engine.scratch });
  try {
    const file = query.text("dockerfile") || "Dockerfile";
    const dockerfile = await textIn(kept.path, [file]);
    if (dockerfile === undefined) {
      throw new DockerError(400, `Cannot locate specified Dockerfile: ${file.slice(0, 200)}`);
    }
    lines.send({ stream: "" });
    const quiet = query.flag("q");
    let last = "";
    const report = await engine.vmsan.build(
      { ...options, archive: kept.path, dockerfile },
      {
        signal,
        onProgress: ({ phase, message }) => {
          if (quiet || phase !== "build" || message === undefined || message === last) return;
          last = message;
          lines.send({ stream: `${message}\n` });
        },
      },
    );
    const id = report.configDigest;
    lines.send({ aux: { ID: id } });
    // All that a client prints which wants to be told the ID alone.
    lines.send({ stream: quiet ? `${id}\n` : `Successfully built ${shortId(id)}\n` });
    for (const tag of query.all("t").filter((one) => one !== "")) {
      if (!quiet) lines.send({ stream: `Successfully tagged ${withTag(tag)}\n` });
      engine.events.emit("image", "tag", id, { name: withTag(tag) });
    }
    lines.end();
  } catch (error) {
    if (!lines.begun) throw error;
    lines.send(failureOf(error));
    lines.end();
  } finally {
    await kept.remove();
  }
}

/** `POST /build/prune`: the builder's cache, which is one thing: all of it goes, or nothing. @throws 400, 409 */
export async function pruneBuilds(call: Call): Promise<void> {
  const { query } = call;
  // Clients send an empty `filters` here.
  const filters = query.filters().only(["label", "label!", "until", "unused-for"]);
  if (filters.of("label") !== undefined) {
    // `docker system prune` sends it to all that prunes: the cache has no labels.
    reply(call, { CachesDeleted: null, SpaceReclaimed: 0 });
    return;
  }
  const until = untilOf(filters, filters.of("until") === undefined ? "unused-for" : "until");
  if ((query.number("min-free-space") ?? 0) > 0) {
    throw new DockerError(400, "the builder's cache does not go by what is free (min-free-space)");
  }
  const bounds = ["keep-storage", "reserved-space", "max-used-space"];
  const keepBytes = Math.max(...bounds.map((name) => query.number(name) ?? 0));
  try {
    const { freedBytes } = await call.engine.vmsan.builds.prune({
      ...(until === Infinity ? {} : { unusedMs: Math.max(0, Date.now() - until) }),
      keepBytes,
    });
    reply(call, { CachesDeleted: null, SpaceReclaimed: freedBytes });
  } catch (error) {
    if (!(error instanceof VmsanError) || error.code !== "ERR_BUILD_IN_USE") throw error;
    throw new DockerError(409, asDockerError(error).message, error);
  }
}
