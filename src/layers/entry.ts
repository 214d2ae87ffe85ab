/** A layer's entries as they are remembered until all layers are known. */
import type { Whiteout } from "./path.ts";
import type { TarEntry } from "./tar/reader.ts";

/** One entry of a layer: its header, and what became of its content. */
export interface LayerEntry<Content> {
  header: TarEntry;
  /** Cleaned path; [] is the root. */
  parts: readonly string[];
  /** The same with slashes between. */
  path: string;
  whiteout: Whiteout;
  /** Where the content went; undefined when it was left out because an upper layer hides it. */
  content: Content | undefined;
}

/** All entries of one layer, in archive order. */
export type LayerEntries<Content> = LayerEntry<Content>[];
