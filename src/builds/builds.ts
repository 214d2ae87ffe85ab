/**
 * builds/: images from Dockerfiles. Takes a Dockerfile and a context; gives an image of the store, built by buildah in a
 * VM of its own (builder/), which reaches images through this host alone (registry/); dockerfile/ is what is read of
 * a Dockerfile here.
 *
 * builds.ts: one build: the context into the builder, buildah, the result out of it and into the store.
 */
import type { Readable } from "node:stream";
import { feed } from "../agent/file-stream.ts";
import { writeFile } from "../agent/file-stream.ts";
import type { BuildReport, BuildRequest } from "../model/api/builds.ts";
import { VmsanError } from "../model/errors.ts";
import { formatReference, parseReference, withLease } from "../oci/images.ts";
import type { Lease } from "../oci/images.ts";
import { assembleImage, findManifest } from "../oci/store/assemble.ts";
import { setName } from "../oci/store/names.ts";
import type { Host } from "../sandbox/host.ts";
import type { Work } from "../sandbox/stages.ts";
import type { Builder } from "./builder/builder.ts";
import { failed } from "./advice.ts";
import { groupOf } from "./registry/had.ts";
import { endedWithVm, isGone } from "./builder/guest.ts";
import { hostsIn, registriesConf, resultName } from "./registry/hosts.ts";
import { Imports } from "./registry/imports.ts";
import { findBuilt } from "./registry/known.ts";
import { withoutLinks } from "./dockerfile/links.ts";
import { BuildOutput } from "./output.ts";
import { formatBytes } from "../util/units.ts";
import { Phases } from "./phases.ts";
import { platformsIn } from "./platforms.ts";
import { RESULT } from "./registry/registry.ts";
import { Remembered, lookAt, originOf } from "./remembered.ts";
import { Results } from "./registry/results.ts";
import type { SentManifest } from "./registry/results.ts";
import { withRoom } from "./room.ts";
import { placesOf, wordsOf } from "./builder/words.ts";
import type { Places } from "./builder/words.ts";

/** The names that the result gets, spelt out. @throws ERR_VALIDATION_IMAGE_REF */
function namesOf(tags: readonly string[]): string[] {
  return tags.map((tag) => {
    const reference = parseReference(tag);
    if (reference.digest === undefined) return formatReference(reference);
    throw new VmsanError({
      code: "ERR_VALIDATION_IMAGE_REF",
      message: `Cannot name an image ${tag}`,
      why: "A digest is what a build results in; it cannot be chosen.",
      fix: "Give a name with a tag.",
    });
  });
}

/** What is said of `COPY --link`. */
const LINKS =
  "--link of COPY and ADD is left out: links that their destinations lead over are followed";

/** One build. */
interface Task {
  request: BuildRequest;
  context: Readable;
  /** What tells whether it is the same as another one. */
  origin: string | undefined;
  /** The names that the result gets, spelt out. */
  names: readonly string[];
  phases: Phases;
}

/** What {@link Builds} knows of an image that it has named. */
type Named = Omit<BuildReport, "timings">;

/** Builds of one VMSAN_DIR. */
export class Builds {
  readonly #host: Host;
  readonly #remembered = new Remembered();
  readonly builder: Builder;

  constructor(host: Host, builder: Builder) {
    this.#host = host;
    this.builder = builder;
  }

  /**
   * Build an image and name it.
   * @param context a tar archive of the build's context, without what is ignored
   * @throws ERR_BUILD_FAILED, ERR_BUILD_*, ERR_IMAGE_*, ERR_VM_*; no name is given then
   */
  async build(request: BuildRequest, context: Readable, work: Work): Promise<BuildReport> {
    const names = namesOf(request.tags);
    const phases = new Phases();
    const { few, all } = await lookAt(context);
    const origin = few === undefined ? undefined : originOf(request, few);
    phases.end("context, its beginning");
    const named = await withLease(
      this.#host.store,
      `build of ${names[0] ?? "an image"}`,
      async (lease) => {
        const known = await this.#unchanged(request, origin, lease, work);
        phases.end("what is known");
        if (known !== undefined) return await this.#name(known, names, work);
        return await withRoom(this.#host.layout.root, work.signal, async (signal) =>
          this.#withBuilder({ request, context: all, origin, names, phases }, lease, {
            ...work,
            signal,
          }),
        );
      },
      work.signal,
    );
    phases.end("names");
    return { ...named, timings: phases.timings };
  }

  /** The images that a build may ask for. */
  #importsOf(request: BuildRequest, hosts: string[], lease: Lease, work: Work): Imports {
    const wish = { ...request, platforms: platformsIn(request) };
    return new Imports(this.#host, lease, wish, hosts, work);
  }

  /** The result of the same build before, if it is there. */
  async #unchanged(
    request: BuildRequest,
    origin: string | undefined,
    lease: Lease,
    work: Work,
  ): Promise<SentManifest | undefined> {
    if (origin === undefined) return undefined;
    const imports = this.#importsOf(request, hostsOf(request), lease, work);
    const config = await this.#remembered.find(origin, imports, this.builder.cache);
    if (config === undefined) return undefined;
    const known = await findBuilt(this.#host.store, lease, config);
    if (known !== undefined) work.progress({ phase: "build", message: "nothing has changed" });
    return known;
  }

  async #withBuilder(
    { request: given, context, origin, names, phases }: Task,
    lease: Lease,
    work: Work,
  ): Promise<Named> {
    const { builder } = this;
    const plain = withoutLinks(given.dockerfile);
    const request = plain === undefined ? given : { ...given, dockerfile: plain };
    if (plain !== undefined) work.progress({ phase: "build", message: LINKS });
    const { store } = this.#host;
    const vm = await builder.enter(request.policy, work);
    phases.end("builder");
    const id = builder.newId();
    const places = placesOf(id);
    const hosts = hostsOf(request);
    const imports = this.#importsOf(request, hosts, lease, work);
    const prefix = `/v2/${id}/${RESULT}/image`;
    const had = builder.registry.had.of(groupOf(request));
    const results = new Results(store, lease, imports, prefix, work.signal, had);
    builder.registry.admit(id, { imports, results });
    let whole = false;
    try {
      await this.#send(vm, places, request, registriesConf(hosts, builder.address, id), work);
      await this.#sendContext(vm, places.context, context, work);
      phases.end("context");
      const output = new BuildOutput(work.progress);
      const words = wordsOf(request, places);
      let exitCode = await this.#run(vm, places, words, output, work);
      const more = hostsOf(request, imports.triggers);
      if (exitCode !== 0 && more.length > hosts.length && /\bfrom=/.test(output.step)) {
        work.progress({ phase: "build", message: "again, with registries that ONBUILD names" });
        imports.know(more);
        await this.#put(vm, places.registries, registriesConf(more, builder.address, id), work);
        exitCode = await this.#run(vm, places, words, output, work);
      }
      // On a full disk buildah does not even remove its container.
      whole = exitCode === 0;
      if (!whole) throw imports.failure ?? failed(output, exitCode, request.dockerfile);
      phases.end("steps");
      const keep = async (manifest: SentManifest): Promise<Named> => {
        const named = await this.#name(manifest, names, work);
        if (origin !== undefined)
          this.#remembered.add(origin, named.configDigest, imports, builder.cache);
        return named;
      };
      const iid = (await builder.guest.read(vm, places.iid, work.signal)).trim();
      const known = results.mayName(iid) ? await findBuilt(store, lease, iid) : undefined;
      if (known !== undefined) return await keep(known);
      work.progress({ phase: "build", message: "taking the result over" });
      const quiet = new BuildOutput(() => undefined);
      const to = resultName(builder.address, id);
      const push = ["buildah", "push", "--tls-verify=false", iid, to];
      const pushed = await this.#run(vm, places, push, quiet, work);
      phases.end("result");
      const { blobs, bytes } = results.sent;
      const told = `${blobs} blobs, ${formatBytes(bytes)}, were sent`;
      work.progress({ phase: "build", message: told });
      if (results.failure !== undefined) throw results.failure;
      const { manifest } = results;
      if (pushed !== 0 || manifest === undefined) throw failed(quiet, pushed);
      return await keep(manifest);
    } catch (error) {
      throw isGone(error) ? endedWithVm(error) : error;
    } finally {
      builder.registry.dismiss(id);
      await builder.leave(vm, work.signal, places, whole);
    }
  }

  /** Put the files of a build into the builder. */
  async #send(
    vm: string,
    places: Places,
    request: BuildRequest,
    registries: string,
    work: Work,
  ): Promise<void> {
    const { guest } = this.builder;
    const { signal } = work;
    await guest.must(vm, ["mkdir", "-p", "-m", "0700", places.context, places.secrets], signal);
    const put = async (path: string, content: string | Buffer): Promise<void> =>
      this.#put(vm, path, content, work);
    await Promise.all([
      put(places.dockerfile, request.dockerfile),
      put(places.registries, registries),
      ...(request.ignore === undefined ? [] : [put(places.ignore, request.ignore)]),
      ...Object.entries(request.secrets).map(async ([name, content]) =>
        put(`${places.secrets}/${name}`, Buffer.from(content, "base64")),
      ),
    ]);
  }

  /** Write a file of a build in the builder. */
  async #put(vm: string, path: string, content: string | Buffer, { signal }: Work): Promise<void> {
    const bytes = (async function* once() {
      yield Buffer.from(content);
      await Promise.resolve();
    })();
    const options = { mode: 0o600, signal, user: "0" };
    await writeFile(this.builder.guest.transport(vm), path, bytes, options);
  }

  /** Unpack the context in the builder, as it comes. */
  async #sendContext(vm: string, to: string, context: Readable, work: Work): Promise<void> {
    let said = "";
    let bytes = 0;
    const attributes = [
      "--xattrs",
      "--xattrs-include=user.*",
      "--xattrs-include=security.capability",
    ];
    const argv = ["tar", "-x", "-p", "--no-same-owner", ...attributes, "-C", to, "-f", "-"];
    const stream = this.builder.guest.start(
      vm,
      argv,
      {
        signal: work.signal,
        onStderr: (text) => void (said = (said + text.toString()).slice(-2000)),
      },
      true,
    );
    const counted = (async function* count() {
      for await (const chunk of context as AsyncIterable<Buffer>) {
        bytes += chunk.length;
        work.progress({ phase: "context", message: "context", done: bytes, unit: "bytes" });
        yield chunk;
      }
    })();
    await feed(stream, counted);
    const { exitCode } = await stream.exit;
    if (exitCode === 0) return;
    throw new VmsanError({
      code: "ERR_BUILD_CONTEXT",
      message: "Cannot unpack the build's context in the builder",
      why: said.trim() || `tar ended with status ${exitCode}.`,
      fix: "Leave out what a build does not need (.dockerignore); `vmsan build prune` empties the builder's disk.",
    });
  }

  /** Run buildah. @returns its status */
  async #run(
    vm: string,
    places: Places,
    words: readonly string[],
    output: BuildOutput,
    { signal }: Work,
  ): Promise<number> {
    const argv = ["env", `CONTAINERS_REGISTRIES_CONF=${places.registries}`, ...words];
    const stream = this.builder.guest.start(vm, argv, {
      signal,
      onStdout: (bytes) => output.take("stdout", bytes),
      onStderr: (bytes) => output.take("stderr", bytes),
    });
    try {
      const { exitCode } = await stream.exit;
      return exitCode;
    } catch (error) {
      // Also what runs in the build's containers, which is not of its process group.
      stream.signal("SIGKILL", true);
      throw error;
    } finally {
      output.end();
    }
  }

  /** Verify the result and give it its names. */
  async #name(manifest: SentManifest, names: readonly string[], { signal }: Work): Promise<Named> {
    const { store } = this.#host;
    const pathOf = (digest: `sha256:${string}`): string => store.blobPath(digest);
    const given = names.length > 0 ? names : [`localhost/built:${manifest.digest.slice(7, 19)}`];
    const [first = ""] = given;
    const found = await findManifest(manifest, { os: "", architecture: "" }, pathOf, first);
    const image = await assembleImage(found, pathOf, first, store, signal);
    for (const name of given) await setName(store, { name, ...manifest, platform: image.platform });
    return { names: [...given], digest: manifest.digest, configDigest: image.configDigest };
  }
}

/** Registries that a build may ask for. @param triggers what base images have of ONBUILD */
function hostsOf(request: BuildRequest, triggers: string[] = []): string[] {
  const { dockerfile, buildArgs, contexts = [] } = request;
  return hostsIn([dockerfile, ...[...buildArgs, ...contexts].map(valueOf), ...triggers]);
}

/** The value of `KEY=VALUE`. */
function valueOf(pair: string): string {
  return pair.slice(pair.indexOf("=") + 1);
}
