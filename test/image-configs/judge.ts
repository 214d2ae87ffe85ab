/**
 * Takes the table's expectations from a Docker engine: `DOCKER_HOST=… node judge.ts [--write]`.
 * Without --write it only says where the engine and the table differ. A tool for people; no test
 * needs an engine.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { configCases, dockerArchive } from "./image.ts";
import type { ConfigCase, Outcome } from "./image.ts";

/** Run the docker client. */
function docker(
  args: string[],
  input?: Buffer,
  caller: Record<string, string> = {},
): Outcome & { stderr: string } {
  const { HOME, PATH, DOCKER_HOST } = process.env;
  const done = spawnSync("/usr/bin/docker", args, {
    env: { HOME, PATH, DOCKER_HOST, ...caller },
    ...(input === undefined ? {} : { input }),
  });
  return {
    status: done.status ?? -1,
    stdout: done.stdout.toString(),
    stderr: done.stderr.toString(),
  };
}

/** What the engine makes of a case. */
function judge(given: ConfigCase): Outcome {
  const name = "vmsan-config-case:latest";
  const loaded = docker(["load"], dockerArchive(given, name));
  if (loaded.status !== 0) throw new Error(`${given.name}: ${loaded.stderr}`);
  const { user, workdir, env = [], entrypoint, args = [], caller } = given.options ?? {};
  const { stderr, ...outcome } = docker(
    [
      "run",
      "--rm",
      "--network",
      "none",
      ...(user === undefined ? [] : ["-u", user]),
      ...(workdir === undefined ? [] : ["-w", workdir]),
      ...env.flatMap((entry) => ["-e", entry]),
      ...(entrypoint === undefined ? [] : ["--entrypoint", entrypoint]),
      name,
      ...args,
    ],
    undefined,
    caller,
  );
  console.error(
    `${given.name}: ${outcome.status} ${JSON.stringify(outcome.stdout)} ${stderr.trim()}`,
  );
  docker(["rmi", "-f", name]);
  return outcome;
}

const cases = configCases();
let differ = 0;
for (const given of cases) {
  const outcome = judge(given);
  if (JSON.stringify(outcome) !== JSON.stringify(given.docker)) differ += 1;
  given.docker = outcome;
}
if (process.argv.includes("--write")) {
  const lines = cases.map((given) => `  ${JSON.stringify(given)}`).join(",\n");
  writeFileSync(join(import.meta.dirname, "cases.json"), `[\n${lines}\n]\n`);
}
console.log(`${cases.length} cases, ${differ} differ from the table`);
