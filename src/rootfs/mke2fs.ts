/** The builder that lets tar and mkfs.ext4 do the work (written next). */
import { VmsanError } from "../model/errors.ts";
import type { DiskBuilder } from "../model/disk.ts";

/** The traditional way: extract, then `mkfs.ext4 -d`. */
export const mke2fsBuilder: DiskBuilder = {
  name: "mke2fs",
  version: "1",
  build: () =>
    Promise.reject(
      new VmsanError({
        code: "ERR_DISK_BUILDER",
        message: "Cannot build with mke2fs",
        why: "That builder is not finished.",
        fix: "Use --builder direct.",
      }),
    ),
};
