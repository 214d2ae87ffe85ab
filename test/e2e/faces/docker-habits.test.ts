/** The table of Docker users' habits (docs/docker.md), run row by row: it cannot say what is not so. */
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { habits, refusalOf, wordsOf } from "../../../scripts/lib/docker-habits.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";
import { vmsan, vmsanOk } from "../support.ts";

const here = installation("kernel");
const work = temporary();
beforeAll(async () => {
  const layout = await umociImage(join(work.path, "alpine"), [busyboxLayer], { cmd: ["sh"] });
  const archive = join(work.path, "alpine.tar");
  await tool(
    "skopeo",
    "copy",
    "--insecure-policy",
    layout,
    `docker-archive:${archive}:alpine:latest`,
  );
  await vmsanOk(["image", "load", "-i", archive], here);
  await vmsanOk(["create", "--name", "web", "--memory", "256", "--from-image", "alpine"], here);
  const say = ["sh", "-c", "echo said on the console >/dev/console"];
  await vmsanOk(["exec", "-u", "root", "web", "--", ...say], here);
});

/** Registries cannot be reached; a shorter life for what would go on (`logs -f`). */
const unreachable = { HTTPS_PROXY: "http://127.0.0.1:9", NO_PROXY: "" };

for (const [about, rows] of Object.entries(habits)) {
  describe(about, () => {
    test.each(rows)("$type", async (habit) => {
      const words = wordsOf(habit);
      const follows = words.includes("-f") && words[0] === "logs";
      const outcome = await vmsan(words, {
        dir: here.dir,
        ...(habit.input === undefined ? {} : { input: habit.input }),
        ...(habit.offline === true ? { env: unreachable } : {}),
        // What follows for ever has said enough once what is wanted was among it.
        ...(follows
          ? {
              onProcess: (child) => {
                let said = "";
                child.stdout?.on("data", (chunk: Buffer) => {
                  said += chunk.toString();
                  if (habit.prints?.test(said) !== false) child.kill("SIGINT");
                });
              },
            }
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
