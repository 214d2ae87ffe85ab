/** What other folders use of ext4/ (see writer.ts for what it is); empty.ts and grow.ts are loaded without all this. */
export { ImageFile } from "./image-file.ts";
export { Ext4Writer } from "./writer.ts";
export { BLOCK_SIZE } from "./constants.ts";
export { BlockAppender } from "./image-file.ts";
export { DataWriter } from "./contents/data.ts";
export { countBlocks } from "./contents/extent.ts";
export { Ext4Reader, rawDisk } from "./reading/reader.ts";
export type { DiskBytes, FoundEntry, FoundInode } from "./reading/reader.ts";
