/** Images on their way: pull, push, load, save, with the lines of progress that clients draw. */
import { validate } from "../../../schema/api.ts";
import { authSchema } from "../../../schema/docker.ts";
import { VmsanError } from "../../../model/errors.ts";
import type { ProgressEvent } from "../../../model/progress.ts";
import { DockerError, asDockerError } from "../errors.ts";
import { reply } from "../http/route.ts";
import { Lines, signalOf } from "../http/lines.ts";
import type { Call } from "../http/route.ts";
import { beginStream, parseJson } from "../http/wire.ts";
import { familiar, isReference, joinName, withTag } from "./names.ts";

/** A step as a line of progress. */
function progressLine(
  { item, message, done, total }: ProgressEvent,
  verb: string,
): object | undefined {
  if (item === undefined) return message === undefined ? undefined : { status: message };
  const detail =
    done === undefined ? {} : { current: done, ...(total === undefined ? {} : { total }) };
  const complete = done !== undefined && done === total;
  const status = done === undefined ? (message ?? verb) : complete ? `${verb} complete` : verb;
  return {
    status,
    progressDetail: complete ? {} : detail,
    id: item.replace(/^sha256:/, "").slice(0, 12),
  };
}

/** The credentials that a call brings along; undefined: none. @throws 400 */
function credentialsOf({ request }: Call): { username: string; password: string } | undefined {
  const text = request.headers["x-registry-auth"];
  if (typeof text !== "string" || text === "") return undefined;
  const value = parseJson(Buffer.from(text, "base64url").toString("utf8"));
  const { username, password } = validate(authSchema, value, "X-Registry-Auth");
  return username && password ? { username, password } : undefined;
}

/** Instructions that a client gives with an image: one an argument, or a piece of a Dockerfile with one a line. */
export function changesOf(query: Call["query"]): string[] {
  return query
    .all("changes")
    .flatMap((text) => text.split(/(?<!\\)\n/))
    .filter((line) => line.trim() !== "");
}

/** `docker import`: a file system that the client sends becomes an image. @throws 400 for one at an address */
async function importFiles(call: Call): Promise<void> {
  const { query, engine, request } = call;
  if (query.text("fromSrc") !== "-") {
    request.resume();
    throw new DockerError(
      400,
      "fetching a file system from an address is not possible here: fetch it, and give the file",
    );
  }
  const name = joinName(query.text("repo"), query.text("tag"));
  const message = query.text("message");
  const lines = new Lines(call);
  try {
    const image = await engine.vmsan.images.import(request, {
      changes: changesOf(query),
      signal: signalOf(call),
      ...(name === "" ? {} : { name }),
      ...(message === "" ? {} : { message }),
    });
    lines.send({ status: image.configDigest });
    engine.events.emit("image", "import", image.configDigest, { name });
    lines.end();
  } catch (error) {
    lines.fail(error);
  }
}

/** `POST /images/create`: import, or pull. @throws 400 */
export async function createImage(call: Call): Promise<void> {
  await (call.query.text("fromSrc") === "" ? pull(call) : importFiles(call));
}

/** Why an image was not pulled, as clients look for it: what a registry does not have, or shows to nobody, is not found. */
function pullFailure(name: string, error: unknown): DockerError {
  const code = error instanceof VmsanError ? error.code : "";
  const known = asDockerError(error);
  if (code === "ERR_IMAGE_NOT_FOUND") {
    return new DockerError(404, `manifest for ${withTag(name)} not found: manifest unknown`, error);
  }
  if (code === "ERR_IMAGE_UNAUTHORIZED" || code === "ERR_IMAGE_DENIED") {
    const why = "repository does not exist or may require 'docker login'";
    return new DockerError(404, `pull access denied for ${name}, ${why}: ${known.message}`, error);
  }
  // Other trouble with a registry is the engine's 500, whatever its own status.
  return known.status === 400 ? known : new DockerError(500, known.message, error);
}

/** Pull. @throws 400 for a name that is none, 404, 500 for trouble with a registry */
async function pull(call: Call): Promise<void> {
  const { query, engine } = call;
  call.request.resume();
  const name = joinName(query.text("fromImage"), query.text("tag"));
  if (name === "") throw new DockerError(400, "fromImage is empty");
  const platform = query.text("platform");
  const lines = new Lines(call);
  const credentials = credentialsOf(call);
  try {
    const image = await engine.vmsan.images.pull(name, {
      pull: "always",
      signal: signalOf(call),
      ...(platform === "" ? {} : { platform }),
      ...(credentials === undefined ? {} : { credentials }),
      onProgress: (event) => {
        const line = progressLine(event, "Downloading");
        if (line !== undefined) lines.send(line);
      },
    });
    lines.send({ status: `Digest: ${image.digest}` });
    lines.send({ status: `Status: Downloaded newer image for ${withTag(name)}` });
    engine.events.emit("image", "pull", withTag(name), { name: withTag(name) });
    lines.end();
  } catch (error) {
    lines.fail(pullFailure(name, error));
  }
}

/** `POST /images/NAME/push`. */
export async function pushImage(call: Call): Promise<void> {
  const { query, engine, params } = call;
  call.request.resume();
  const name = joinName(params["name"] ?? "", query.text("tag"));
  const image = await engine.catalogue.find(name);
  const credentials = credentialsOf(call);
  const lines = new Lines(call);
  lines.send({ status: `The push refers to repository [${params["name"]}]` });
  try {
    const report = await engine.vmsan.images.push(name, {
      signal: signalOf(call),
      ...(credentials === undefined ? {} : { credentials }),
      onProgress: (event) => {
        const line = progressLine(event, "Pushing");
        if (line !== undefined) lines.send(line);
      },
    });
    const size = image.view.sizeBytes;
    const tag = query.text("tag") || "latest";
    lines.send({ status: `${tag}: digest: ${report.digest} size: ${size}` });
    lines.send({ progressDetail: {}, aux: { Tag: tag, Digest: report.digest, Size: size } });
    engine.events.emit("image", "push", name, { name });
    lines.end();
  } catch (error) {
    lines.fail(error);
  }
}

/** `POST /images/load`. */
export async function load(call: Call): Promise<void> {
  const { engine, request } = call;
  const lines = new Lines(call);
  try {
    const images = await engine.vmsan.images.load(request, { signal: signalOf(call) });
    for (const { names, configDigest } of images) {
      const known = names.map(familiar);
      const said =
        known.length === 0 ? [`image ID: ${configDigest}`] : known.map((name) => `image: ${name}`);
      for (const one of said) lines.send({ stream: `Loaded ${one}\n` });
      engine.events.emit("image", "load", configDigest, { name: known[0] ?? "" });
    }
    if (!lines.begun) lines.send({ stream: "" });
    lines.end();
  } catch (error) {
    lines.failWithin(error);
  }
}

/** `GET /images/get`, `GET /images/NAME/get`: images as one archive. */
export async function save(call: Call): Promise<void> {
  const { engine, response, query, params } = call;
  const names =
    params["name"] === undefined
      ? query.all("names").flatMap((one) => one.split(","))
      : [params["name"]];
  if (names.length === 0) throw new DockerError(400, "no image is named");
  const wanted = new Map<string, string>();
  for (const name of names) {
    const image = await engine.catalogue.find(name);
    // By the name that was asked for, which the archive then has; an ID has none.
    const own = image.names.find((one) => one === withTag(name));
    const stored = own ?? image.names.find(isReference);
    wanted.set(stored ?? image.digest, image.id);
  }
  beginStream(response, "application/x-tar");
  await engine.vmsan.images.save([...wanted.keys()], response, {
    format: "docker-archive",
    signal: signalOf(call),
  });
  response.end();
  for (const [name, id] of wanted) engine.events.emit("image", "save", id, { name });
}

/** `POST /auth`: whether a registry takes a name and a password. @throws 401 */
export async function checkCredentials(call: Call, body: unknown): Promise<void> {
  const { username, password, serveraddress } = validate(authSchema, body, "credentials");
  const server = (serveraddress ?? "")
    .replace(/^https?:\/\//, "")
    .replace(/\/v[12]\/?$/, "")
    .replace(/\/$/, "");
  const registry = server === "" || server === "index.docker.io" ? "docker.io" : server;
  try {
    await call.engine.vmsan.images.login(registry, {
      username: username ?? "",
      password: password ?? "",
    });
  } catch (error) {
    throw new DockerError(401, asDockerError(error).message, error);
  }
  reply(call, { Status: "Login Succeeded", IdentityToken: "" });
}
