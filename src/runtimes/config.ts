/** What a catalogue entry says over the configuration of the image that it names. */
import type { ImageConfig } from "../model/image.ts";
import type { Runtime } from "./catalogue.ts";

/** The part of a catalogue entry that is configuration. */
export type RuntimeConfig = Pick<Runtime, "user" | "workdir" | "env" | "cmd">;

/**
 * The image's configuration with the entry's over it: variables one by one, everything else whole.
 * The image's entry point stays; `cmd` is what it is given.
 */
export function configOver(image: ImageConfig, entry: RuntimeConfig): ImageConfig {
  const nameOf = (pair: string): string => pair.split("=", 1)[0] ?? "";
  const ours = entry.env ?? [];
  const replaced = new Set(ours.map(nameOf));
  return {
    ...image,
    env: [...image.env.filter((pair) => !replaced.has(nameOf(pair))), ...ours],
    ...(entry.user === undefined ? {} : { user: entry.user }),
    ...(entry.workdir === undefined ? {} : { workingDir: entry.workdir }),
    ...(entry.cmd === undefined ? {} : { cmd: entry.cmd }),
  };
}
