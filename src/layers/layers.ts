/** What other folders use of layers/ (see stream.ts for what it is). */
export { Arrivals } from "./blob-file.ts";
export { DEFAULT_LIMITS, type LayerLimits } from "./limits.ts";
export { LayerSources, startReaders, type ReaderMemory } from "./readers.ts";
export { mergeImage, type MergedImage } from "./stream.ts";
export { workerUrl } from "./worker-url.ts";
export { encodeHeader, END_OF_ARCHIVE, padTo } from "./tar/writer.ts";
export type { ByteSource } from "./byte-source.ts";
export { RECORD } from "./tar/header.ts";
export { TarReader, type TarEntry, type TarKind } from "./tar/reader.ts";
