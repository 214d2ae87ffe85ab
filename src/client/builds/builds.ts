/** Builds of images from Dockerfiles, for SDK users. */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import type { PullPolicy } from "../../model/api.ts";
import type {
  BuildPrune,
  BuildPruneRequest,
  BuildReport,
  BuildRequest,
} from "../../model/api/builds.ts";
import type { VmsanError } from "../../model/errors.ts";
import { emptyContext, secretOf, sourcesOf, sourcesOfStream, textOfStream } from "./context.ts";
import type { Sources } from "./context.ts";
import { commitOf } from "./git.ts";
import type { Daemon, WorkOptions } from "../daemon.ts";
import type { ImageTemplate } from "./image-template.ts";
import { policyOf, registryAccess } from "../options.ts";
import type { NetworkOptions } from "../options.ts";
import { absolutePath, fsPath } from "../../util/byte-text.ts";
import { invalid } from "../../util/units.ts";

/** What is built, and how. */
export interface BuildOptions extends NetworkOptions {
  /**
   * Directory whose files the Dockerfile copies; none: no files. `DIR#REF[:SUBDIRECTORY]` is what a git
   * repository of this host has committed. A stream is a Dockerfile, or a context as a tar archive.
   */
  context?: string | Readable;
  /** Path of the context as a tar archive, instead of a directory: with the Dockerfile's text. */
  archive?: string;
  /** Path of the Dockerfile, or a stream with it; default `Containerfile` or `Dockerfile` of the context. */
  file?: string | Readable;
  /** The Dockerfile's text, or a template, instead of a file. */
  dockerfile?: string | ImageTemplate;
  /** Names of the result. */
  tags?: string[];
  /** `KEY` → value of the Dockerfile's ARGs. */
  buildArgs?: Record<string, string>;
  labels?: Record<string, string>;
  /** Name → address, or addresses, that commands find in /etc/hosts. */
  addHosts?: Record<string, string | readonly string[]>;
  /** Name → image that `FROM name` and `--from=name` mean. */
  contexts?: Record<string, string>;
  /** Stage to stop at. */
  target?: string;
  /** `os/architecture`; commands of other ones than this host's cannot be run. */
  platform?: string;
  /** Identifier → path of a file, or the content in bytes, for `RUN --mount=type=secret`; never part of a layer. */
  secrets?: Record<string, string | Uint8Array>;
  /** Run every step, also those that have been run before. */
  noCache?: boolean;
  /** When registries are asked for base images; default `missing`. */
  pull?: PullPolicy;
  /** Path of certificates of registries' authorities to trust besides the system's. */
  caFile?: string;
}

/** `KEY=VALUE` pairs. */
function pairsOf(map: Record<string, string> = {}): string[] {
  return Object.entries(map).map(([key, value]) => `${key}=${value}`);
}

/** The error for a Dockerfile that is given in two ways. */
function givenTwice(): VmsanError {
  return invalid(
    "FLAGS",
    "dockerfile",
    "dockerfile",
    "The Dockerfile is given twice.",
    "Give its text, a file, or a stream.",
  );
}

/** What the options say to build from. */
async function findSources(options: BuildOptions): Promise<Sources> {
  const { context, archive, file, dockerfile } = options;
  let text = typeof dockerfile === "object" ? dockerfile.toDockerfile() : dockerfile;
  if (archive !== undefined) {
    if (text !== undefined && context === undefined && file === undefined) {
      return { dockerfile: text, open: () => createReadStream(fsPath(absolutePath(archive))) };
    }
    throw invalid(
      "FLAGS",
      "archive",
      archive,
      "An archive is the whole context, and its Dockerfile is given as text.",
      "Leave out context and file, and give dockerfile.",
    );
  }
  if (text !== undefined && file !== undefined) throw givenTwice();
  const path = file instanceof Readable ? undefined : file;
  if (file instanceof Readable) {
    if (file === context) throw givenTwice();
    text = await textOfStream(file);
  }
  if (context instanceof Readable) return await sourcesOfStream(context, path, text);
  if (context !== undefined) {
    const committed = await commitOf(context);
    if (committed !== undefined) return await sourcesOfStream(committed, path, text);
    return await sourcesOf(context, path, text);
  }
  if (text !== undefined) return { dockerfile: text, open: emptyContext };
  throw invalid(
    "FLAGS",
    "context",
    "",
    "There is nothing to build from.",
    "Give a context's directory, or the text of a Dockerfile.",
  );
}

/** What is asked of the daemon. */
function requestOf(
  options: BuildOptions,
  sources: Sources,
  secrets: Record<string, string>,
): BuildRequest {
  const { target, platform, context, addHosts = {}, contexts = {} } = options;
  return {
    tags: options.tags ?? [],
    ...(typeof context === "string" ? { place: absolutePath(context) } : {}),
    dockerfile: sources.dockerfile,
    ...(sources.ignore === undefined ? {} : { ignore: sources.ignore }),
    buildArgs: pairsOf(options.buildArgs),
    labels: pairsOf(options.labels),
    ...(Object.keys(addHosts).length === 0
      ? {}
      : {
          addHosts: Object.entries(addHosts).flatMap(([name, addresses]) =>
            [addresses].flat().map((address) => `${name}:${address}`),
          ),
        }),
    ...(Object.keys(contexts).length === 0 ? {} : { contexts: pairsOf(contexts) }),
    ...(target === undefined ? {} : { target }),
    ...(platform === undefined ? {} : { platform }),
    secrets,
    noCache: options.noCache ?? false,
    pull: options.pull ?? "missing",
    policy: policyOf(options),
    registry: registryAccess(options.caFile),
  };
}

/** Builds of one VMSAN_DIR. */
export class Builds {
  private readonly daemon: Daemon;

  constructor(daemon: Daemon) {
    this.daemon = daemon;
  }

  /**
   * Build an image in the builder's VM and name it.
   * @throws ERR_BUILD_FAILED with the last lines of output, ERR_BUILD_CONTEXT, ERR_IMAGE_*, ERR_VM_*
   */
  async build(options: BuildOptions, work: WorkOptions = {}): Promise<BuildReport> {
    const secrets: Record<string, string> = {};
    for (const [id, given] of Object.entries(options.secrets ?? {})) {
      secrets[id] = await secretOf(id, given);
    }
    const sources = await findSources(options);
    try {
      return await this.send(requestOf(options, sources, secrets), sources, work);
    } finally {
      await sources.close?.();
    }
  }

  /** Send the request, and the context behind it. */
  private async send(
    request: BuildRequest,
    sources: Sources,
    work: WorkOptions,
  ): Promise<BuildReport> {
    const body = async function* parts(): AsyncGenerator<Buffer> {
      yield Buffer.from(`${JSON.stringify(request)}\n`);
      yield* sources.open() as AsyncIterable<Buffer>;
    };
    const uploads: Readable[] = [];
    const upload = (): Readable => {
      const sent = Readable.from(body(), { objectMode: false });
      uploads.push(sent);
      return sent;
    };
    try {
      return await this.daemon.streamed<BuildReport>("POST", "/v1/builds", { upload, ...work });
    } finally {
      // What reads a context that is not wanted any more would keep files open, and this process alive.
      for (const sent of uploads) sent.destroy();
    }
  }

  /**
   * Remove the builder's VM with its cache.
   * @param wish which one alone; default: whatever it is
   * @throws ERR_BUILD_IN_USE while something is built
   */
  async prune(wish: BuildPruneRequest = {}): Promise<BuildPrune> {
    return await this.daemon.call<BuildPrune>("POST", "/v1/builds/prune", { body: wish });
  }
}
