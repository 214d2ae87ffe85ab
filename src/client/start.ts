/** Starting the daemon of a VMSAN_DIR on demand. */
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import type { StartReport } from "../model/api.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import { daemonEnvironment } from "./connection/daemon-environment.ts";
import { entryPoint, sourcesCompileCache } from "../util/package.ts";
import { makeDirectory } from "../util/files/directory.ts";
import type { Layout } from "../util/paths.ts";

/** One that cannot start says so and ends; this is for one that hangs. A host with much other work takes half of it. */
const START_LIMIT_MS = 60_000;
/**
 * For V8, in MiB. What the daemon makes and forgets is small; without a limit it grows by tens of
 * MiB before the first collection.
 */
const YOUNG_GENERATION = "--max-semi-space-size=4";

/**
 * Start the daemon and wait until it serves. When another process starts it at the same
 * moment, one of the two daemons finds the lock taken, waits for the other's socket and
 * reports ready as well.
 * @throws ERR_DAEMON_START with the end of its log
 */
export async function startDaemon(layout: Layout): Promise<void> {
  const fail = (why: string, cause?: unknown, details?: Record<string, unknown>): VmsanError =>
    new VmsanError(
      {
        code: "ERR_DAEMON_START",
        ...(details === undefined ? {} : { details }),
        message: `Cannot start the daemon for ${layout.root}`,
        why,
        fix: `See ${layout.daemonLog}; \`vmsan doctor\` checks the directory.`,
      },
      cause,
    );
  let log: number;
  try {
    makeDirectory(layout.run);
    log = openSync(layout.daemonLog, "a", 0o600);
  } catch (error) {
    throw fail(messageOf(error), error);
  }
  try {
    const child = spawn(process.execPath, [YOUNG_GENERATION, "--", entryPoint("daemon/main")], {
      detached: true,
      cwd: "/",
      stdio: ["ignore", log, log, "pipe"],
      env: {
        // A second start from the cache takes half the time, and 20 MiB less from sources.
        NODE_COMPILE_CACHE: sourcesCompileCache ?? layout.compileCache,
        ...daemonEnvironment(process.env),
        VMSAN_DIR: layout.root,
        // The user's are for the user's programs, as bin/vmsan has it.
        NODE_OPTIONS: process.env["VMSAN_NODE_OPTIONS"],
      },
    });
    const pipe = child.stdio[3];
    if (pipe === null || pipe === undefined || !("setEncoding" in pipe))
      throw fail("no status pipe");
    try {
      const report = await new Promise<StartReport>((resolve, reject) => {
        let text = "";
        const timer = setTimeout(
          () => reject(fail(`It did not answer within ${START_LIMIT_MS / 1000} s.`)),
          START_LIMIT_MS,
        );
        const settle = (): void => clearTimeout(timer);
        child.once("error", (error) => {
          settle();
          reject(fail(messageOf(error), error));
        });
        // Not "exit": what it said may not have been read yet.
        child.once("close", (code, signal) => {
          settle();
          const how = signal === null ? undefined : { signal };
          reject(
            fail(`It ended with ${signal ?? `status ${code}`} before it served.`, undefined, how),
          );
        });
        pipe.setEncoding("utf8");
        pipe.on("data", (chunk: string) => {
          text += chunk;
          if (!text.includes("\n")) return;
          settle();
          resolve(JSON.parse(text.slice(0, text.indexOf("\n"))) as StartReport);
        });
      });
      if (!report.ready) throw new VmsanError(report.error);
    } finally {
      child.removeAllListeners("close");
      pipe.destroy();
      child.unref();
    }
  } finally {
    closeSync(log);
  }
}
