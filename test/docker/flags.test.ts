/** The table of `docker run`'s flags (docs/docker.md) against the command line's own list, each tried where it has an example. */
import { beforeAll, expect, test } from "vitest";
import { runFlags } from "../../scripts/lib/docker-flags.ts";
import type { FlagSays } from "../../scripts/lib/docker-flags.ts";
import { DockerCli, findDocker } from "../fixtures/docker-cli.ts";
import { fakeEngine } from "../fixtures/docker-engine.ts";

/** The last command line whose flags were looked at. */
const LOOKED_AT = 28;

const engine = fakeEngine();
let docker: DockerCli;
let missing = "";
/** What this command line has. */
let known = new Set<string>();

beforeAll(async () => {
  const program = await findDocker().catch((error: unknown) => {
    missing = `there is no docker command line: ${String(error).slice(0, 300)}`;
    return "";
  });
  if (program === "") return;
  docker = new DockerCli(program, () => ({
    DOCKER_HOST: `unix://${engine.socketPath}`,
    DOCKER_CONFIG: engine.place.path,
  }));
  const help = await docker.ok("run", "--help");
  known = new Set([...help.matchAll(/^ +(?:-\w, )?(--[a-z0-9-]+)/gm)].map(([, flag = ""]) => flag));
  await docker.ok("network", "create", "net");
});

/** Flags that this command line has and that have an example. */
const examples = (...says: FlagSays[]): { flag: string; example: readonly string[] }[] =>
  runFlags.flatMap(({ flag, says: said, example }) =>
    says.includes(said) && example !== undefined && known.has(flag) ? [{ flag, example }] : [],
  );

test("it has every flag that the command line has", async (context) => {
  context.skip(missing !== "", missing);
  const [major = "0"] = (await docker.ok("version", "--format", "{{.Client.Version}}")).split(".");
  context.skip(Number(major) > LOOKED_AT, `this command line is of version ${major}`);
  const table = new Set(runFlags.map(({ flag }) => flag));
  expect([...known].filter((flag) => !table.has(flag))).toEqual([]);
  expect(table.size).toBe(runFlags.length);
});

test("what works, differs or has no effect is taken without a word", async (context) => {
  context.skip(missing !== "", missing);
  const words = examples("works", "differs", "no effect").flatMap(({ example }) => example);
  const { code, err } = await docker.run(["create", ...words, "alpine", "true"]);
  expect([code, err]).toEqual([0, ""]);
  await docker.ok("rm", "flags");
});

test("what is not applied is said", async (context) => {
  context.skip(missing !== "", missing);
  const tried = examples("warns");
  const words = tried.flatMap(({ example }) => example);
  const { code, err } = await docker.run(["create", ...words, "alpine", "true"]);
  expect(code).toBe(0);
  const said = new Set(err.match(/--[a-z-]+/g));
  expect(tried.filter(({ flag }) => !said.has(flag))).toEqual([]);
});

test("a link on a network that users have made is taken; another name is warned of", async (context) => {
  context.skip(missing !== "", missing);
  // As compose sends them, which has them for the container, not for the network.
  const linked = async (link: string): Promise<object> =>
    await engine.json(
      "POST",
      "/containers/create",
      { Image: "alpine", HostConfig: { NetworkMode: "net", Links: [link] } },
      201,
    );
  expect(await linked("other:other")).toMatchObject({ Warnings: [] });
  expect(await linked("other:o")).toMatchObject({
    Warnings: [expect.stringContaining("Not applied: --link")],
  });
});

test("what is refused is, with its name", async (context) => {
  context.skip(missing !== "", missing);
  for (const { flag, example } of examples("refused")) {
    const { code, err } = await docker.run(["create", ...example, "alpine", "true"]);
    expect([flag, code]).toEqual([flag, 1]);
    expect(err).toContain(flag);
  }
});
