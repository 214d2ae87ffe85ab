/** Which gateway of a directory runs: so that `vmsan ui` hands its key to that one, and to no other program. */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { errnoOf } from "../model/errors.ts";
import { validate } from "../schema/api.ts";
import { writeFileAtomic } from "../util/atomic.ts";
import { identityOf, isAlive } from "../util/process-identity.ts";

const servingSchema = z.strictObject({
  url: z.string().max(1024),
  process: z.strictObject({ pid: z.int(), startTime: z.number(), bootId: z.string() }),
});

const fileOf = (directory: string): string => join(directory, "serving.json");

/** Note that this process serves. @param directory absolute, of the gateway's files */
export async function noteServing(directory: string, url: string): Promise<void> {
  const process = identityOf(globalThis.process.pid);
  await writeFileAtomic(fileOf(directory), JSON.stringify({ url, process }));
}

/** Where a gateway of this directory serves now; undefined when none is known. */
export async function whoServes(
  directory: string,
): Promise<{ url: string; pid: number } | undefined> {
  try {
    const text = await readFile(fileOf(directory), "utf8");
    const { url, process } = validate(servingSchema, JSON.parse(text), "note of a gateway");
    // A process that lives still has its port: nobody else can answer there.
    return isAlive(process) ? { url, pid: process.pid } : undefined;
  } catch (error) {
    // What cannot be read as a note names nobody either; the next gateway replaces it.
    if (errnoOf(error) === "EACCES") throw error;
    return undefined;
  }
}

/** Take this process's own note away. */
export async function forgetServing(directory: string): Promise<void> {
  const known = await whoServes(directory);
  if (known?.pid === globalThis.process.pid) await rm(fileOf(directory), { force: true });
}
