/** `docker-daemon:NAME`: an image of a Docker engine that answers, by its `save`. */
import { homedir } from "node:os";
import type { Image } from "../../model/image.ts";
import { errnoOf, messageOf } from "../../model/errors.ts";
import { loadArchive } from "./archives.ts";
import type { ArchiveContext } from "./archive-file.ts";
import { imageError } from "../errors.ts";

/** Milliseconds within which an engine answers a ping, or does not count as one. */
const PING_MS = 5000;

/** The engine's socket: DOCKER_HOST, or Docker's usual places. */
function socketPaths(env: NodeJS.ProcessEnv): string[] {
  const host = env["DOCKER_HOST"] ?? "";
  if (host.startsWith("unix://")) return [host.slice("unix://".length)];
  if (host !== "") {
    throw imageError(
      "ERR_IMAGE_DOCKER",
      `Cannot use the Docker engine at ${host.split("?")[0] ?? ""}`,
      "Only engines on a unix socket of this machine are used.",
      "Unset DOCKER_HOST, or save the image there and use docker-archive:FILE.",
    );
  }
  const runtime = env["XDG_RUNTIME_DIR"];
  return [
    "/var/run/docker.sock",
    ...(runtime === undefined ? [] : [`${runtime}/docker.sock`]),
    `${env["HOME"] ?? homedir()}/.docker/run/docker.sock`,
  ];
}

/** Ask the engine something; gives the answer's status and body. */
async function ask(
  socketPath: string,
  path: string,
  signal: AbortSignal,
): Promise<{ status: number; body: AsyncIterable<Uint8Array> }> {
  const { request } = await import("node:http");
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path, headers: { host: "docker" }, signal });
    outgoing.on("error", reject);
    outgoing.on("response", (body) => resolve({ status: body.statusCode ?? 0, body }));
    outgoing.end();
  });
}

/** The first socket with an engine behind it: one that is there but silent is none. */
async function findEngine(env: NodeJS.ProcessEnv, signal?: AbortSignal): Promise<string> {
  const tried: string[] = [];
  for (const path of socketPaths(env)) {
    const limit = AbortSignal.timeout(PING_MS);
    try {
      const both = signal === undefined ? limit : AbortSignal.any([limit, signal]);
      const { status, body } = await ask(path, "/_ping", both);
      for await (const _ of body);
      if (status === 200) return path;
      tried.push(`${path}: status ${status}`);
    } catch (error) {
      signal?.throwIfAborted();
      const silent = limit.aborted ? "does not answer" : (errnoOf(error) ?? messageOf(error));
      tried.push(`${path}: ${silent}`);
    }
  }
  throw imageError(
    "ERR_IMAGE_DOCKER",
    "Cannot find a Docker engine",
    `None answers (${tried.join("; ")}).`,
    "Start Docker, or name the image in a registry or an archive instead.",
  );
}

/** Copy an image of the engine into the store. */
export async function resolveDockerDaemon(
  source: { name: string },
  name: string,
  context: ArchiveContext,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Image> {
  const { signal } = context;
  const socket = await findEngine(env, signal);
  const path = `/images/${encodeURIComponent(source.name)}/get`;
  const { status, body } = await ask(socket, path, signal ?? new AbortController().signal);
  if (status !== 200) {
    throw imageError(
      "ERR_IMAGE_NOT_FOUND",
      `Cannot get ${name}`,
      `The Docker engine answered with status ${status}.`,
      "See `docker images` for the names it has.",
    );
  }
  const [image] = await loadArchive(body, name, context);
  if (image === undefined) {
    throw imageError(
      "ERR_IMAGE_ARCHIVE",
      `Cannot get ${name}`,
      "The Docker engine sent an archive without an image.",
      "Try `docker save` by hand.",
    );
  }
  return image;
}
