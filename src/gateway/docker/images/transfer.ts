/** Images on their way: pull, push, load, save, with the lines of progress that clients draw. */
import { validate } from "../../../schema/api.ts";
import { authSchema } from "../../../schema/docker.ts";
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

/** `POST /images/create`: pull. @throws 400 for what it cannot make of bytes */
export async function pull(call: Call): Promise<void> {
  const { query, engine } = call;
  call.request.resume();
  if (query.text("fromSrc") !== "") {
    throw new DockerError(
      400,
      "importing a file system is not possible here: build one (FROM scratch, ADD FILE /) or run it as it is (vmsan run rootfs:DIR)",
    );
  }
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
    // Trouble with a registry is the engine's 500, whatever its own status.
    const known = asDockerError(error);
    lines.fail(known.status === 400 ? known : new DockerError(500, known.message, error));
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
      const [name] = names;
      const said = name === undefined ? `image ID: ${configDigest}` : `image: ${familiar(name)}`;
      lines.send({ stream: `Loaded ${said}\n` });
      engine.events.emit("image", "load", configDigest, {
        name: name === undefined ? "" : familiar(name),
      });
    }
    if (!lines.begun) lines.send({ stream: "" });
    lines.end();
  } catch (error) {
    lines.fail(error);
  }
}

/** `GET /images/get`, `GET /images/NAME/get`: one image as an archive. */
export async function save(call: Call): Promise<void> {
  const { engine, response, query, params } = call;
  const names =
    params["name"] === undefined
      ? query.all("names").flatMap((one) => one.split(","))
      : [params["name"]];
  const [first, ...more] = names;
  if (first === undefined || more.length > 0) {
    throw new DockerError(400, "one image at a time: save each in a file of its own");
  }
  const image = await engine.catalogue.find(first);
  beginStream(response, "application/x-tar");
  await engine.vmsan.images.save(image.names.find(isReference) ?? image.digest, response, {
    format: "docker-archive",
    signal: signalOf(call),
  });
  response.end();
  engine.events.emit("image", "save", image.id, { name: first });
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
