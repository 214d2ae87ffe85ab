/** An image's merged tree as one tar archive, for those who want its files and no image. */
import { open } from "node:fs/promises";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { BuildContext } from "../model/disk.ts";
import type { LayerBlob } from "../model/image.ts";
import { asidePath } from "./aside.ts";
import { runBuild } from "./build.ts";

/**
 * Merge layers into an archive: `./` first, directories before what they hold.
 * @param dir an existing directory with room for it; nothing stays there, however it ends
 */
export async function openTreeArchive(
  layers: LayerBlob[],
  dir: string,
  context: BuildContext,
): Promise<Readable> {
  const aside = await asidePath(join(dir, "tree"));
  await mkdir(aside, { mode: 0o700 });
  try {
    const output = join(aside, "tree.tar");
    const identity = { uuid: Buffer.alloc(16), hashSeed: Buffer.alloc(16) };
    const options = { sizeBytes: 0, journal: false };
    await runBuild(layers, { output, format: "tar", options, identity }, context);
    // Open, it can be read to its end although it has no name any more.
    return (await open(output)).createReadStream({ highWaterMark: 1 << 20 });
  } finally {
    await rm(aside, { recursive: true, force: true });
  }
}
