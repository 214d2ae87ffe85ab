/** The table of Docker users' habits (docs/docker.md), run row by row: it cannot say what is not so. */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { habits, refusalOf, wordsOf } from "../../scripts/lib/docker-habits.ts";
import { busyboxLayer, tool, umociImage } from "./images.ts";
import { freshDir, removeDir, vmsan, vmsanOk } from "./support.ts";

let dir = "";
let work = "";
beforeAll(async () => {
  dir = await freshDir(["kernels", "initramfs", "probes"]);
  work = await mkdtemp(join(tmpdir(), "vmsan-habits-"));
  const layout = await umociImage(join(work, "alpine"), [busyboxLayer], { cmd: ["sh"] });
  const archive = join(work, "alpine.tar");
  await tool(
    "skopeo",
    "copy",
    "--insecure-policy",
    layout,
    `docker-archive:${archive}:alpine:latest`,
  );
  await vmsanOk(["image", "load", "-i", archive], { dir });
  await vmsanOk(["create", "--name", "web", "--memory", "256", "--from-image", "alpine"], { dir });
});
afterAll(async () => {
  await removeDir(dir);
  await rm(work, { recursive: true, force: true });
});

/** Registries cannot be reached; a shorter life for what would go on (`logs -f`). */
const unreachable = { HTTPS_PROXY: "http://127.0.0.1:9", NO_PROXY: "" };

for (const [about, rows] of Object.entries(habits)) {
  describe(about, () => {
    test.each(rows)("$type", async (habit) => {
      const words = wordsOf(habit);
      const follows = words.includes("-f") && words[0] === "logs";
      const outcome = await vmsan(words, {
        dir,
        ...(habit.input === undefined ? {} : { input: habit.input }),
        ...(habit.offline === true ? { env: unreachable } : {}),
        // What follows for ever has said enough with its first lines.
        ...(follows
          ? { onProcess: (child) => child.stdout?.once("data", () => child.kill("SIGINT")) }
          : {}),
      });
      if (habit.prints !== undefined) {
        expect(outcome.stderr).not.toContain("error:");
        expect(outcome.stdout.toString().replaceAll("\r", "")).toMatch(habit.prints);
        if (!follows) expect(outcome.code).toBe(0);
        return;
      }
      expect(outcome.stdout.toString()).toBe("");
      if (habit.says !== undefined) {
        expect(outcome.code).toBeGreaterThan(0);
        expect(outcome.stderr).toMatch(habit.says);
        return;
      }
      const fix = await refusalOf(words);
      expect(outcome.code).toBe(2);
      expect(outcome.stderr).toContain(`fix: ${fix}`);
      expect(fix).toMatch(/`|has nothing to pass through|nothing to pass through/);
    });
  });
}
