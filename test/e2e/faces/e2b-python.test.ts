/**
 * The published Python package `e2b`, unmodified, against a gateway and a guest that really boots:
 * python/story.py. The package is installed from PyPI into a virtual environment in .cache, once.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Keys } from "../../../src/gateway/access/keys.ts";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { ListeningGateway } from "../../../src/gateway/http/server.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { pythonWith } from "../../fixtures/venv.ts";
import { installation } from "../../fixtures/ladder.ts";
import { root } from "../support.ts";

const run = promisify(execFile);
const here = installation("base");
let python = "";
let gateway: ListeningGateway;
let key = "";
/** Why the package is not there. */
let missing: string | undefined;

beforeAll(async () => {
  python = await pythonWith("e2b-python-2.63.0").catch((error: unknown) => {
    missing = `the Python package e2b cannot be installed: ${String(error).slice(0, 500)}`;
    return "";
  });
  if (missing !== undefined) return;
  gateway = await startGateway({ dir: here.dir, listen: "127.0.0.1:0" });
  key = (await new Keys(layoutOf(here.dir).gateway).create({ project: "python" })).text;
});

afterAll(async () => await gateway?.close());

test("a story of more than thirty calls holds, synchronous and asynchronous", async ({ skip }) => {
  if (missing !== undefined) skip(missing);
  const env = {
    ...process.env,
    E2B_API_URL: gateway.url,
    E2B_SANDBOX_URL: gateway.url,
    E2B_VOLUME_API_URL: gateway.url,
    E2B_API_KEY: `e2b_${key}`,
  };
  const story = join(root, "test/e2e/python/story.py");
  const { stdout } = await run(python, [story], { env });
  const chapters = ["control", "commands", "files", "terminal", "volumes", "asynchronous", "end"];
  expect(stdout.trim().split("\n")).toEqual(chapters);
});
