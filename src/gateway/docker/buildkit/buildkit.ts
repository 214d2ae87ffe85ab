/** The services of BuildKit that buildx's driver `docker` needs: workers, one build at a time by reference, its progress. */
import type { IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { hostArchitecture } from "../../../util/hosts/architecture.ts";
import { packageVersion } from "../../../util/package.ts";
import { DockerError, asDockerError } from "../errors.ts";
import { buildFor } from "./build.ts";
import type { Builder } from "./build.ts";
import { GrpcPeer, serveGrpc } from "./grpc.ts";
import type { GrpcCall, GrpcMethods } from "./grpc.ts";
import { Progress } from "./progress.ts";
import { Message, encode, mapFields } from "../../../util/packing/protobuf.ts";

/** How long a build waits for what belongs to it, in milliseconds. */
const PATIENCE_MS = 20_000;

/** What of the gateway's calls there is, by the names that clients look for. */
const CAPABILITIES = [
  "solve.base",
  "return",
  "returnmap",
  "proto.refarray",
  "frontend.inputs",
  "gateway.solve.metadata",
  "gateway.solve.evaluate",
  "gateway.evaluate",
];

const CONTROL = "/moby.buildkit.v1.Control";
const BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge";
/** Header of a bridge's calls: which build they are about. */
const BUILD_ID = "buildkit-controlapi-buildid";

/** A build from the client's first word about it. */
interface Build {
  progress: Progress;
  session: string;
  tags: string[];
  attributes: Record<string, string>;
  /** Digest of the result, once there is one. */
  result: string;
  /** Resolves when the client's side says how it ended. */
  returned: PromiseWithResolvers<void>;
  signal: AbortSignal;
}

/** A platform in the form of messages. */
function platform(): Buffer {
  return encode([1, hostArchitecture()], [2, "linux"]);
}

/** The one worker. */
function worker(): Buffer {
  const version = encode([1, "vmsan"], [2, packageVersion()]);
  const labels = { "org.mobyproject.buildkit.worker.executor": "vmsan" };
  return encode([1, "vmsan"], ...mapFields(2, labels), [3, platform()], [5, version]);
}

/** Names of the result, and whether somebody wants it elsewhere. @throws 501 */
function tagsOf(request: Message): string[] {
  const old = request.text(3);
  const exporters = request
    .messages(13)
    .map((one) => ({ type: one.text(1), attributes: one.map(2) }));
  if (exporters.length === 0 && old !== "") {
    exporters.push({ type: old, attributes: request.map(4) });
  }
  return exporters.flatMap(({ type, attributes }) => {
    if (type !== "moby" && type !== "image") {
      throw new DockerError(
        501,
        `an output of type ${type.slice(0, 60)} is not possible here: build an image, then use docker save, docker cp or docker export`,
      );
    }
    if (attributes["push"] === "true") {
      throw new DockerError(501, "pushing while building is not possible here: docker push it");
    }
    return (attributes["name"] ?? "").split(",").filter((name) => name !== "");
  });
}

/** What buildx finds behind one engine. */
export class BuildKit {
  private readonly builder: Builder;
  private readonly sessions = new Map<string, GrpcPeer>();
  private readonly builds = new Map<string, Build>();
  private readonly methods: GrpcMethods;

  constructor(builder: Builder) {
    this.builder = builder;
    const empty = async (): Promise<Buffer> => await Promise.resolve(Buffer.alloc(0));
    const version = encode([1, "vmsan"], [2, packageVersion()]);
    this.methods = {
      [`${CONTROL}/ListWorkers`]: async () => await Promise.resolve(encode([1, worker()])),
      [`${CONTROL}/Info`]: async () => await Promise.resolve(encode([1, version])),
      [`${CONTROL}/DiskUsage`]: empty,
      [`${CONTROL}/Prune`]: async (call) => await this.prune(call),
      [`${CONTROL}/Solve`]: async (call) => await this.solve(call),
      [`${CONTROL}/Status`]: async (call) => await this.status(call),
      [`${CONTROL}/ListenBuildHistory`]: async () => await Promise.resolve(undefined),
      [`${BRIDGE}/Ping`]: async (call) => await this.ping(call),
      [`${BRIDGE}/Solve`]: async (call) => await this.bridgeSolve(call),
      [`${BRIDGE}/Evaluate`]: empty,
      [`${BRIDGE}/Inputs`]: empty,
      [`${BRIDGE}/Warn`]: empty,
      [`${BRIDGE}/Return`]: async (call) => await this.return(call),
    };
  }

  /** Serve a client's calls. */
  async serve(socket: Duplex): Promise<void> {
    await serveGrpc(socket, this.methods);
  }

  /** Take up a client's session, over which builds ask for its files. @throws 400 without its ID */
  async session(request: IncomingMessage, accept: () => Promise<Duplex>): Promise<void> {
    const id = request.headers["x-docker-expose-session-uuid"];
    if (typeof id !== "string" || id === "" || this.sessions.has(id)) {
      throw new DockerError(400, "the session has no ID, or another one's");
    }
    const peer = new GrpcPeer(await accept());
    this.sessions.set(id, peer);
    await peer.closed();
    this.sessions.delete(id);
  }

  /** What comes by another connection, a little later perhaps. @throws 404 */
  private async soon<T>(what: string, find: () => T | undefined, signal: AbortSignal): Promise<T> {
    for (const until = Date.now() + PATIENCE_MS; ; await sleep(25, undefined, { ref: false })) {
      const found = find();
      if (found !== undefined) return found;
      if (signal.aborted || Date.now() > until) throw new DockerError(404, `no such ${what}`);
    }
  }

  /** The builder's cache is one thing: what asks for a kind of records alone would take all of them. @throws 400 */
  private async prune({ request }: GrpcCall): Promise<Buffer | undefined> {
    const message = new Message(request);
    if (message.text(1) !== "") {
      throw new DockerError(400, "the builder's cache is one thing: of filters there is until");
    }
    if (message.number(6) !== 0n) {
      throw new DockerError(400, "the builder's cache does not go by what is free");
    }
    const { freedBytes } = await this.builder.vmsan.builds.prune({
      // Nanoseconds.
      unusedMs: Number(message.number(3)) / 1e6,
      keepBytes: Math.max(Number(message.number(4)), Number(message.number(5))),
    });
    return freedBytes === 0
      ? undefined
      : encode([1, "builder"], [4, freedBytes], [9, "the builder"]);
  }

  /** A build from its beginning to its end; what is to be built comes with it, or by the bridge. */
  private async solve({ request, signal }: GrpcCall): Promise<Buffer> {
    const message = new Message(request);
    const ref = message.text(1);
    if (ref === "" || this.builds.has(ref))
      throw new DockerError(400, "the build has no reference");
    const build: Build = {
      progress: new Progress(),
      session: message.text(5),
      tags: tagsOf(message),
      attributes: message.map(7),
      result: "",
      returned: Promise.withResolvers<void>(),
      signal,
    };
    build.returned.promise.catch(() => undefined);
    this.builds.set(ref, build);
    signal.addEventListener("abort", () => build.returned.reject(signal.reason), { once: true });
    try {
      if (message.text(6) === "") await build.returned.promise;
      else await this.run(build, message.text(6), build.attributes);
      const { result, tags } = build;
      if (result === "") return Buffer.alloc(0);
      const names = tags.length === 0 ? {} : { "image.name": tags.join(",") };
      return encode(
        ...mapFields(1, {
          "containerimage.config.digest": result,
          "containerimage.digest": result,
          ...names,
        }),
      );
    } finally {
      build.progress.finish();
      // Whoever asks how it went may come behind its end.
      setTimeout(() => this.builds.delete(ref), PATIENCE_MS).unref();
    }
  }

  /** Build what a frontend is asked for. */
  private async run(
    build: Build,
    frontend: string,
    attributes: Record<string, string>,
  ): Promise<void> {
    if (frontend !== "dockerfile.v0") {
      throw new DockerError(
        501,
        `the frontend ${frontend.slice(0, 100)} is not possible here: Dockerfiles are built by buildah, without "# syntax" of their own`,
      );
    }
    const { progress, tags, signal } = build;
    const peer = await this.soon("session", () => this.sessions.get(build.session), signal);
    try {
      build.result = await buildFor(this.builder, peer, { attributes, tags }, progress, signal);
    } catch (error) {
      progress.end(asDockerError(error).message);
      throw error;
    }
  }

  private async status({ request, send, signal }: GrpcCall): Promise<undefined> {
    const ref = new Message(request).text(1);
    const build = await this.soon("build", () => this.builds.get(ref), signal);
    await build.progress.follow(send, signal);
    return undefined;
  }

  private async buildOf({ headers, signal }: GrpcCall): Promise<Build> {
    const id = String(headers[BUILD_ID] ?? "");
    return await this.soon("build", () => this.builds.get(id), signal);
  }

  private async ping(call: GrpcCall): Promise<Buffer> {
    await this.buildOf(call);
    const capabilities = CAPABILITIES.map((id): [number, Buffer] => [
      1,
      encode([1, id], [2, true]),
    ]);
    return encode(...capabilities, [3, worker()]);
  }

  private async bridgeSolve(call: GrpcCall): Promise<Buffer> {
    const build = await this.buildOf(call);
    const message = new Message(call.request);
    await this.run(build, message.text(2), message.map(3));
    const reference = encode([1, build.result]);
    return encode([3, encode([3, reference])]);
  }

  private async return(call: GrpcCall): Promise<Buffer> {
    const build = await this.buildOf(call);
    const message = new Message(call.request);
    if (message.has(2)) {
      build.returned.reject(new DockerError(400, message.message(2).text(2)));
    } else build.returned.resolve();
    return Buffer.alloc(0);
  }
}
