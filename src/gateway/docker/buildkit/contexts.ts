/** Contexts of a build besides the first, `--build-context NAME=…`: images by their names, directories as images that are made of them. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import type { BuildOptions } from "../../../client/builds/builds.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import { refused } from "../errors.ts";
import { ignorePatterns, readTexts, writeArchive } from "./files.ts";
import type { GrpcPeer } from "./grpc.ts";
import type { Progress } from "./progress.ts";

const IMAGE = "docker-image://";
const LOCAL = "local:";
/** The name of what is made on the way, and 32 hexadecimal digits. */
const PASSING = "localhost/build-context:";

/** Who builds. */
type Contextual = Pick<Vmsan, "build" | "images">;

/** The client, and who is told. */
export interface Client {
  peer: GrpcPeer;
  progress: Progress;
  signal: AbortSignal;
}

/** What names mean in a Dockerfile, for as long as its build runs. */
export interface NamedContexts {
  images: Record<string, string>;
  /** Those that were made go again. */
  remove: () => Promise<void>;
}

/** A directory of the client's as an image. @returns its name */
async function imageOf(
  vmsan: Contextual,
  { peer, progress, signal }: Client,
  directory: string,
  archive: string,
  options: Pick<BuildOptions, "networkPolicy">,
): Promise<string> {
  const file = ".dockerignore";
  const ignore = (await readTexts(peer, directory, [file], signal)).get(file) ?? "";
  const exclude = ignorePatterns(ignore);
  const sent = await writeArchive(peer, { directory, exclude }, archive, signal);
  progress.log(`transferred ${sent.files} files, ${sent.bytes} bytes\n`);
  const tag = `${PASSING}${randomBytes(16).toString("hex")}`;
  const dockerfile = "FROM scratch\nCOPY . /\n";
  await vmsan.build({ ...options, archive, dockerfile, tags: [tag] }, { signal });
  return tag;
}

/** Remove what builds that were cut off have left; none may run. @returns the names */
export async function removePassing(
  images: Pick<Vmsan["images"], "list" | "remove">,
): Promise<string[]> {
  const { images: all } = await images.list();
  const left = all
    .flatMap(({ names }) => names)
    .filter((name) => name.startsWith(PASSING) && /:[0-9a-f]{32}$/.test(name));
  for (const name of left) await images.remove(name);
  return left;
}

/**
 * Have all contexts that attributes name.
 * @param dir a directory for what is fetched, which its owner removes
 * @throws 400 for kinds that there are not
 */
export async function namedContexts(
  vmsan: Contextual,
  client: Client,
  contexts: Readonly<Record<string, string>>,
  dir: string,
  options: Pick<BuildOptions, "networkPolicy">,
): Promise<NamedContexts> {
  const images: Record<string, string> = {};
  const made: string[] = [];
  const remove = async (): Promise<void> => {
    for (const name of made.splice(0)) await vmsan.images.remove(name);
  };
  try {
    for (const [name, where] of Object.entries(contexts)) {
      if (where.startsWith(IMAGE)) {
        images[name] = where.slice(IMAGE.length);
      } else if (where.startsWith(LOCAL)) {
        client.progress.begin(`[context ${name}] load from client`);
        const archive = join(dir, `context-${made.length}.tar`);
        const tag = await imageOf(vmsan, client, where.slice(LOCAL.length), archive, options);
        made.push(tag);
        images[name] = tag;
      } else {
        throw refused(
          `--build-context ${name.slice(0, 100)}`,
          "give a directory, or an image (docker-image://NAME).",
        );
      }
    }
    return { images, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}
