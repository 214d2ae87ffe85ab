/** Volumes that several containers use at the same time: Docker's command line and its Compose, in guests. */
import { execFile } from "node:child_process";
import { chown, mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { TestContext } from "vitest";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { Gateway } from "../../../src/gateway/gateway.ts";
import { composePlugin } from "../../fixtures/docker-compose.ts";
import { DockerCli, findDocker } from "../../fixtures/docker-cli.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";

const run = promisify(execFile);
/** For a whole story, in milliseconds. */
const LONG = 1_200_000;
const place = temporary();
const made = installation("kernel");
const wanted = { docker: "", compose: "", missing: "" };
let gateway: Gateway | undefined;
let docker: DockerCli;

const needs = (context: TestContext): void => context.skip(wanted.missing !== "", wanted.missing);

beforeAll(async () => {
  try {
    wanted.docker = await findDocker();
    wanted.compose = await composePlugin();
  } catch (error) {
    wanted.missing = `there is no client for this test: ${String(error).slice(0, 500)}`;
    process.stderr.write(`${wanted.missing}\n`);
  }
  await mkdir(join(place.path, "config/cli-plugins"), { recursive: true });
  await symlink(wanted.compose, join(place.path, "config/cli-plugins/docker-compose"));
  docker = new DockerCli(wanted.docker, () => ({
    DOCKER_HOST: gateway?.docker ?? "",
    DOCKER_CONFIG: join(place.path, "config"),
  }));
  const site = async (rootfs: string): Promise<void> => {
    const { stdout } = await run("/bin/busybox", ["--list"]);
    const there = new Set((await run("ls", [join(rootfs, "bin")])).stdout.trim().split("\n"));
    for (const name of stdout.trim().split("\n")) {
      if (!there.has(name)) await symlink("busybox", join(rootfs, "bin", name));
    }
    for (const name of ["tmp", "etc", "root"]) await mkdir(join(rootfs, name));
    await writeFile(join(rootfs, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
    await writeFile(join(rootfs, "etc/group"), "root:x:0:\n");
    await mkdir(join(rootfs, "srv/app"), { recursive: true });
    await writeFile(join(rootfs, "srv/app/index.html"), "of the image\n");
    await chown(join(rootfs, "srv/app"), 33, 33);
  };
  const layout = await umociImage(join(place.path, "image"), [busyboxLayer, site], {
    cmd: ["sh"],
    env: ["PATH=/bin"],
  });
  const archive = join(place.path, "small.tar");
  await tool("skopeo", "copy", "-q", layout, `docker-archive:${archive}:small:latest`);
  await made.vmsan.images.load(archive);
  gateway = await startGateway({ dir: made.dir, listen: "127.0.0.1:0", docker: {} });
}, LONG);
afterAll(async () => await gateway?.close());

const ok = (...words: string[]): Promise<string> => docker.ok(...words);
const options = async (name: string): Promise<string> =>
  (await ok("volume", "inspect", "--format", "{{json .Options}}", name)).trim();

test(
  "a site's server and its program share a volume, others what was in one before; `down -v` takes all of it away",
  async (context) => {
    needs(context);
    const project = join(place.path, "site");
    await mkdir(project);
    const goesOn = "while true; do sleep 1; done";
    const shell = (script: string): string[] => ["sh", "-c", script];
    const file = {
      services: {
        // The first that starts has nothing at that place, the second one has.
        web: {
          image: "small",
          command: ["httpd", "-f", "-p", "80", "-h", "/www"],
          volumes: ["site:/www:ro"],
          ports: ["127.0.0.1::80"],
        },
        app: {
          image: "small",
          command: shell(goesOn),
          volumes: ["site:/srv/app", "before:/before"],
          depends_on: ["web"],
        },
        backup: {
          image: "small",
          command: shell(`while true; do cp /site/index.html /before/copy; sleep 1; done`),
          volumes: ["site:/site:ro", "before:/before"],
          depends_on: ["app"],
        },
      },
      volumes: { site: {}, before: { external: true } },
    };
    await writeFile(join(project, "compose.yaml"), JSON.stringify(file));
    const compose = (...words: string[]): Promise<string> =>
      ok("compose", "--project-directory", project, ...words);
    // Its disk has something of a container that is gone.
    await ok("volume", "create", "before");
    const owner = process.getuid?.() === 0 ? "7:8" : "0:0";
    const writes = `echo kept >/v/file && chown ${owner} /v/file && chmod 640 /v/file`;
    await ok("run", "--rm", "-v", "before:/v", "small", "sh", "-c", writes);
    expect(await options("before")).toBe("null");

    await compose("up", "-d");
    for (const name of ["before", "site_site"])
      expect(await options(name)).toBe('{"shared":"true"}');
    const [, port] = /127\.0\.0\.1:(\d+)/.exec(await compose("port", "web", "80")) ?? [];
    const page = async (): Promise<string> =>
      await (await fetch(`http://127.0.0.1:${port}/index.html`)).text();
    await expect.poll(page, { timeout: 120_000 }).toBe("of the image\n");
    await compose("exec", "-T", "app", "sh", "-c", "echo of the program >/srv/app/index.html");
    expect(await page()).toBe("of the program\n");
    const look = "stat -c %u:%g%a /before/file; cat /before/file";
    expect(await compose("exec", "-T", "backup", "sh", "-c", look)).toBe(`${owner}640\nkept\n`);
    await expect
      .poll(async () => await compose("exec", "-T", "app", "cat", "/before/copy"), {
        timeout: 120_000,
      })
      .toBe("of the program\n");
    const write = ["exec", "-T", "web", "sh", "-c", "echo no >/www/index.html"];
    const refused = await docker.run(["compose", "--project-directory", project, ...write]);
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringMatching(/Read-only file system/),
    ]);

    await compose("stop", "-t", "20", "app");
    await compose("start", "app");
    expect(await compose("exec", "-T", "app", "cat", "/srv/app/index.html")).toBe(
      "of the program\n",
    );
    await compose("down", "-v", "-t", "20");
    expect(await ok("ps", "-aq")).toBe("");
    expect((await ok("volume", "ls", "-q")).trim()).toBe("before");
    await ok("volume", "rm", "before");
  },
  LONG,
);

test(
  "one container has a disk; a second one beside it is told what to do, and that is enough",
  async (context) => {
    needs(context);
    const sleeps = ["small", "sleep", "100000"];
    await ok("run", "-d", "--name", "first", "-v", "solo:/v", ...sleeps);
    expect(await options("solo")).toBe("null");
    const second = await docker.run(["run", "-d", "--name", "second", "-v", "solo:/v", ...sleeps]);
    expect([second.code, second.err]).toEqual([
      125,
      expect.stringMatching(/in use by first, .*docker restart first/),
    ]);
    await ok("exec", "first", "sh", "-c", "echo of the first >/v/file");
    await ok("restart", "-t", "20", "first");
    await ok("start", "second");
    expect(await ok("exec", "second", "cat", "/v/file")).toBe("of the first\n");
    await ok("exec", "second", "sh", "-c", "echo of the second >/v/file");
    expect(await ok("exec", "first", "cat", "/v/file")).toBe("of the second\n");
    await ok("rm", "-f", "first", "second");
    await ok("volume", "create", "-o", "shared=true", "made");
    expect(await options("made")).toBe('{"shared":"true"}');
    for (const word of ["shared=perhaps", "device=/dev/sda"]) {
      expect((await docker.run(["volume", "create", "-o", word, "no"])).code).toBe(1);
    }
    await ok("volume", "create", "-o", "shared=true", "-o", "size=2", "sized");
    const room = ["small", "sh", "-c", "df -k /v | tail -n 1"];
    expect(await ok("run", "--rm", "-v", "sized:/v", ...room)).toMatch(/ 2097152 /);
    await ok("volume", "rm", "made", "sized", "solo");
  },
  LONG,
);
