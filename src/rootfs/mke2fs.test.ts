import { diskBuilderContract } from "./contract.ts";
import { mke2fsBuilder } from "./mke2fs.ts";

const root = process.getuid?.() === 0;
if (!root) console.warn("mke2fs keeps owners and devices for root only: those cases are skipped");
// mkfs.ext4 -d of e2fsprogs 1.47.0 stores whole 32-bit seconds, and directories without indexes.
diskBuilderContract(mke2fsBuilder, { full: root, exactTimes: false, indexes: false });
