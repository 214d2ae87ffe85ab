/**
 * buildkit/: what `docker buildx` says to an engine, over our builds. Takes connections that were taken over for HTTP/2
 * (`/grpc`, where the engine serves, and `/session`, where the client does); gives images, by engine.vmsan.build.
 *
 * build.ts: one build that buildx asks for: its files fetched over the session, then built like any other.
 */
import { mkdtemp, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { keepArchive, textIn } from "../../../client/builds/archive.ts";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import { DockerError } from "../errors.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { Events } from "../events.ts";
import { addedHosts } from "../images/hosts.ts";
import { withTag } from "../images/names.ts";
import { namedContexts } from "./contexts.ts";
import type { NamedContexts } from "./contexts.ts";
import { ignorePatterns, readTexts, writeArchive } from "./files.ts";
import type { GrpcPeer } from "./grpc.ts";
import type { Progress } from "./progress.ts";
import { Message, encode } from "../../../util/packing/protobuf.ts";

/** Who builds, and who is told. */
export interface Builder {
  vmsan: Pick<Vmsan, "build" | "builds" | "images">;
  events: Pick<Events, "emit">;
  /** Absolute path of a directory for what is there while a build runs; its owner empties it at its start. */
  scratch: string;
}

/** What is asked for. */
export interface BuildWish {
  /** Attributes of the Dockerfile's frontend: `filename`, `target`, `build-arg:NAME`, … */
  attributes: Record<string, string>;
  /** Names of the result. */
  tags: readonly string[];
}

/** Addresses of archives that the client has, as `docker build -` does. */
const UPLOADED = "http://buildkit-session/";
const UPLOAD = "/moby.upload.v1.Upload/Pull";
const SECRETS = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/** Refuse what only BuildKit has. @throws 501 */
function refuse(what: string, instead: string): never {
  throw new DockerError(501, `${what} is not possible here: ${instead}`);
}

/** Attributes that ask for something that builds here do not have. */
function refuseUnknown(attributes: Record<string, string>): void {
  const address = attributes["context"] ?? "";
  if (address !== "" && !address.startsWith(UPLOADED))
    refuse(`building from ${address.slice(0, 200)}`, "fetch it, and build from the directory.");
  if (attributes["requestid"] !== undefined) {
    refuse("checking and printing instead of building (--check, --call)", "leave it out.");
  }
  if ((attributes["platform"] ?? "").includes(",")) {
    refuse("building for several platforms at once", "build each, with --platform.");
  }
}

/** The values behind a prefix of attributes. */
function withPrefix(attributes: Record<string, string>, prefix: string): Record<string, string> {
  const found = Object.entries(attributes).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(found.map(([name, value]) => [name.slice(prefix.length), value]));
}

/** Identifiers of the secrets that a Dockerfile mounts. */
export function secretsIn(dockerfile: string): string[] {
  const mounts = dockerfile.matchAll(/--mount=(\S*type=secret\S*)/g);
  const ids = [...mounts].map(([, words = ""]) => {
    const fields = new Map(words.split(",").map((word) => [word.split("=", 1)[0], word]));
    const word = fields.get("id") ?? fields.get("target") ?? fields.get("dst") ?? "";
    const value = word.slice(word.indexOf("=") + 1);
    return fields.has("id") ? value : (value.split("/").at(-1) ?? "");
  });
  return [...new Set(ids)].filter((id) => /^[A-Za-z0-9_.-]{1,128}$/.test(id));
}

/** The secrets that the client has of those. */
async function fetchSecrets(
  peer: GrpcPeer,
  ids: readonly string[],
  signal: AbortSignal,
): Promise<Record<string, Buffer>> {
  const secrets: Record<string, Buffer> = {};
  for (const id of ids) {
    try {
      secrets[id] = new Message(await peer.ask(SECRETS, encode([1, id]), signal)).bytes(1);
    } catch (error) {
      // The client has none of that name: a step that must have it says so.
      if (error instanceof DockerError && error.status === 400) continue;
      throw error;
    }
  }
  return secrets;
}

/** What a build's options say besides its files. */
function optionsOf({ attributes, tags }: BuildWish): Omit<BuildOptions, "archive" | "dockerfile"> {
  const { target = "", platform = "" } = attributes;
  const mode = attributes["force-network-mode"];
  return {
    tags: [...tags],
    buildArgs: withPrefix(attributes, "build-arg:"),
    labels: withPrefix(attributes, "label:"),
    addHosts: addedHosts((attributes["add-hosts"] ?? "").split(",")),
    noCache: attributes["no-cache"] !== undefined,
    pull: attributes["image-resolve-mode"] === "pull" ? "always" : "missing",
    ...(target === "" ? {} : { target }),
    ...(platform === "" ? {} : { platform }),
    ...(mode === "none" ? { networkPolicy: "deny-all" } : {}),
  };
}

/** The error for a build without a Dockerfile. */
function noDockerfile(filename: string): DockerError {
  const why = `failed to read dockerfile: open ${filename}: no such file or directory`;
  return new DockerError(400, why);
}

/** Have an archive that the client was given. @returns the Dockerfile, which is in it or the client's own */
async function fetchArchive(
  peer: GrpcPeer,
  attributes: Record<string, string>,
  path: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const { filename = "Dockerfile", context = "", dockerfilekey } = attributes;
  progress.begin("[internal] load remote build context");
  const source = async function* bytes(): AsyncGenerator<Buffer> {
    // Asked for once it is read: a small one is over at once, and what nobody has read by then is lost.
    const call = peer.call(UPLOAD, { urlpath: `/${context.slice(UPLOADED.length)}` }, signal);
    call.end();
    try {
      for await (const message of call.messages) yield new Message(message).bytes(1);
    } finally {
      call.cancel();
    }
  };
  const kept = await keepArchive(source(), { near: dirname(path) });
  try {
    await rename(kept.path, path);
  } finally {
    await kept.remove();
  }
  const dockerfile =
    dockerfilekey === undefined
      ? await textIn(path, [filename])
      : (await readTexts(peer, dockerfilekey, [filename], signal)).get(filename);
  if (dockerfile === undefined) throw noDockerfile(filename);
  return dockerfile;
}

/** Have a directory of the client's as an archive. @returns the Dockerfile */
async function fetchDirectory(
  peer: GrpcPeer,
  attributes: Record<string, string>,
  archive: string,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const {
    filename = "Dockerfile",
    contextkey = "context",
    dockerfilekey = "dockerfile",
  } = attributes;
  progress.begin(`[internal] load build definition from ${filename}`);
  const own = `${filename}.dockerignore`;
  const texts = await readTexts(peer, dockerfilekey, [filename, own], signal);
  const dockerfile = texts.get(filename);
  if (dockerfile === undefined) throw noDockerfile(filename);
  progress.begin("[internal] load build context");
  const general = ".dockerignore";
  const ignore =
    texts.get(own) ?? (await readTexts(peer, contextkey, [general], signal)).get(general) ?? "";
  // A list of the Dockerfile's own counts alone.
  const exclude = [...ignorePatterns(ignore), ...(texts.has(own) ? [general] : [])];
  const sent = await writeArchive(peer, { directory: contextkey, exclude }, archive, signal);
  progress.log(`transferred ${sent.files} files, ${sent.bytes} bytes\n`);
  return dockerfile;
}

/** Build. @returns the configuration's digest */
export async function buildFor(
  builder: Builder,
  peer: GrpcPeer,
  wish: BuildWish,
  progress: Progress,
  signal: AbortSignal,
): Promise<string> {
  const { attributes, tags } = wish;
  refuseUnknown(attributes);
  let contexts: NamedContexts | undefined;
  const dir = await mkdtemp(join(builder.scratch, "vmsan-build-"));
  try {
    const archive = join(dir, "context.tar");
    const dockerfile = attributes["context"]
      ? await fetchArchive(peer, attributes, archive, progress, signal)
      : await fetchDirectory(peer, attributes, archive, progress, signal);
    const secrets = await fetchSecrets(peer, secretsIn(dockerfile), signal);
    const options = optionsOf(wish);
    const { networkPolicy: policy } = options;
    contexts = await namedContexts(
      builder.vmsan,
      { peer, progress, signal },
      withPrefix(attributes, "context:"),
      dir,
      policy === undefined ? {} : { networkPolicy: policy },
    );
    progress.begin("[internal] prepare the builder");
    let last = "";
    const report = await builder.vmsan.build(
      { ...options, contexts: contexts.images, archive, dockerfile, secrets },
      {
        signal,
        onProgress: ({ phase, message }) => {
          if (phase !== "build" || message === undefined || message === last) return;
          last = message;
          const [, count = "", words = ""] = /^STEP (\d+\/\d+): (.*)$/s.exec(message) ?? [];
          if (count === "") progress.log(`${message}\n`);
          else progress.begin(`[${count}] ${words}`);
        },
      },
    );
    progress.begin("exporting to image");
    for (const tag of tags) {
      progress.log(`naming to ${withTag(tag)}\n`);
      builder.events.emit("image", "tag", report.configDigest, { name: withTag(tag) });
    }
    progress.end();
    return report.configDigest;
  } finally {
    await rm(dir, { recursive: true, force: true });
    await contexts?.remove();
  }
}
