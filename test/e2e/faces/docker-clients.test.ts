/**
 * Clients of Docker's Engine API that others have written, unmodified: docker compose, testcontainers for Node and for Python,
 * the command line of dev containers, in guests that really boot; dockerode on the fake driver. Each is pinned and installed below .cache
 * when it is missing (test/fixtures/).
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { networkInterfaces } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { TestContext } from "vitest";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { Gateway } from "../../../src/gateway/gateway.ts";
import { composePlugin } from "../../fixtures/docker-compose.ts";
import { DockerCli, findDocker } from "../../fixtures/docker-cli.ts";
import type { Done } from "../../fixtures/docker-cli.ts";
import { npmPackages } from "../../fixtures/kept.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { pythonWith } from "../../fixtures/venv.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";
import { root } from "../support.ts";

const run = promisify(execFile);
/** For a whole story there, in milliseconds. */
const LONG = 1_200_000;
/** For an event on a machine that has other work too, in milliseconds. */
const PATIENT = { timeout: 120_000 };

const place = temporary();
const made = installation("disks");
const fake = installation("nothing");
let gateway: Gateway | undefined;
let fakeGateway: Gateway | undefined;
/** What a client needs, or why there is none. */
const wanted = {
  docker: { path: "", missing: "" },
  compose: { path: "", missing: "" },
  packages: { path: "", missing: "" },
  python: { path: "", missing: "" },
};
let docker: DockerCli;

/** Find or make one of them; it may be that the machine has no registry, or no compiler. */
async function have(name: keyof typeof wanted, find: () => Promise<string>): Promise<void> {
  try {
    wanted[name].path = await find();
  } catch (error) {
    wanted[name].missing = `there is no ${name} for this test: ${String(error).slice(0, 500)}`;
    process.stderr.write(`${wanted[name].missing}\n`);
  }
}

/** Skip a test whose clients are not there. */
function needs(context: TestContext, ...names: (keyof typeof wanted)[]): void {
  for (const name of names) context.skip(wanted[name].missing !== "", wanted[name].missing);
}

/** What every client here goes by. */
const environment = (): Record<string, string> => ({
  DOCKER_HOST: gateway?.docker ?? "",
  DOCKER_CONFIG: join(place.path, "config"),
  TESTCONTAINERS_RYUK_DISABLED: "true",
  // These tests may themselves run in a container, which testcontainers would look at the engine from.
  TESTCONTAINERS_CONNECTION_MODE: "docker_host",
  TC_HOST: "127.0.0.1",
});

beforeAll(async () => {
  await have("docker", findDocker);
  await have("compose", composePlugin);
  await have("packages", async () => await npmPackages("docker-clients"));
  await have("python", async () => await pythonWith("testcontainers-python-4.15.0"));
  docker = new DockerCli(wanted.docker.path, environment);
  await mkdir(join(place.path, "config/cli-plugins"), { recursive: true });
  await symlink(wanted.compose.path, join(place.path, "config/cli-plugins/docker-compose"));
  const layout = await umociImage(
    join(place.path, "image"),
    [
      busyboxLayer,
      async (rootfs) => {
        const programs = (await run("/bin/busybox", ["--list"])).stdout.trim().split("\n");
        const there = new Set((await run("ls", [join(rootfs, "bin")])).stdout.trim().split("\n"));
        for (const name of programs) {
          if (!there.has(name)) await symlink("busybox", join(rootfs, "bin", name));
        }
        for (const name of ["tmp", "etc", "root"]) await mkdir(join(rootfs, name));
        await writeFile(join(rootfs, "etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n");
        await writeFile(join(rootfs, "etc/group"), "root:x:0:\n");
      },
    ],
    { cmd: ["sh"], env: ["PATH=/bin"] },
  );
  const archive = join(place.path, "alpine.tar");
  await tool("skopeo", "copy", "-q", layout, `docker-archive:${archive}:alpine:latest`);
  await made.vmsan.images.load(archive);
  gateway = await startGateway({ dir: made.dir, listen: "127.0.0.1:0", docker: {} });
  await fake.vmsan.images.load(archive);
  fakeGateway = await startGateway({
    dir: fake.dir,
    listen: "127.0.0.1:0",
    driver: "fake",
    docker: {},
  });
}, LONG);

afterAll(async () => {
  await gateway?.close();
  await fakeGateway?.close();
});

/** A story in a process of its own. */
async function story(file: string, argv: string[], env: Record<string, string>): Promise<void> {
  const { stdout } = await run(file, argv, { env: { ...process.env, ...env } });
  expect(stdout).toBe("all is well\n");
}

describe("docker compose", () => {
  const project = (name: string): string => join(place.path, name);
  /** A compose command for a project. */
  const compose = (name: string, ...words: string[]): string[] => [
    "compose",
    "--project-directory",
    project(name),
    ...words,
  ];
  const ok = async (name: string, ...words: string[]): Promise<string> =>
    await docker.ok(...compose(name, ...words));
  const ids = async (): Promise<string[]> =>
    (await docker.ok("ps", "-aq", "--no-trunc")).trim().split("\n").toSorted();
  /** Whether something listens. */
  const answers = async (host: string, port: number): Promise<boolean> =>
    await new Promise((resolve) => {
      const socket = connect({ host, port, timeout: 20_000 });
      const settle = (open: boolean) => (): void => {
        socket.destroy();
        resolve(open);
      };
      socket.on("connect", settle(true));
      socket.on("error", settle(false));
      socket.on("timeout", settle(false));
    });

  beforeAll(async () => {
    const often = { interval: "1s", timeout: "60s", retries: 100 };
    const image = "alpine";
    const shell = (script: string): string[] => ["sh", "-c", script];
    const goesOn = "while true; do sleep 1; done";
    const files = {
      one: {
        services: {
          web: {
            image,
            command: shell(
              "[ -e /data/page ] || echo page > /data/page; exec httpd -f -p 80 -h /data",
            ),
            volumes: ["data:/data"],
            ports: ["127.0.0.1::80"],
            networks: { front: { aliases: ["www"] } },
            healthcheck: { test: ["CMD", "wget", "-qO-", "http://127.0.0.1/page"], ...often },
          },
          app: {
            image,
            command: shell(`wget -qO- http://www/page; ${goesOn}`),
            depends_on: { web: { condition: "service_healthy" } },
            networks: ["front", "back"],
          },
          db: {
            image,
            command: shell(
              `echo db is up; while ! [ -e /tmp/go ]; do sleep 0.1; done; echo went on; ${goesOn}`,
            ),
            networks: ["back"],
            read_only: true,
            tmpfs: ["/tmp:size=1m,mode=1770"],
            shm_size: "2m",
            extra_hosts: ["elsewhere:192.0.2.7"],
          },
        },
        volumes: { data: {} },
        networks: { front: {}, back: { internal: true } },
      },
      two: { services: { web: { image, command: shell(goesOn) } } },
    };
    for (const [name, file] of Object.entries(files)) {
      await mkdir(project(name));
      await writeFile(join(project(name), "compose.yaml"), JSON.stringify(file));
    }
  });

  test(
    "three services with a volume, networks, health, an order; a second `up` changes nothing; all of it goes again",
    async (context) => {
      needs(context, "docker", "compose");
      await ok("one", "up", "-d");
      const before = await ids();
      expect(before).toHaveLength(3);
      // What was started once the service it needs was healthy has found it by its alias.
      await expect
        .poll(async () => await ok("one", "logs", "--no-log-prefix", "app"), PATIENT)
        .toBe("page\n");
      expect(await ok("one", "ps", "--format", "{{.Service}} {{.Status}}")).toMatch(
        /^web Up .*\(healthy\)$/m,
      );
      // A span of time, as 0s, would mean the beginning of this second.
      const events = async (): Promise<string> => {
        const until = (Date.now() / 1000).toFixed(3);
        return await docker.ok(
          "events",
          "--since",
          "1",
          "--until",
          until,
          "--format",
          "{{.Action}}",
        );
      };
      const changes = /create|start|die|destroy|connect/g;
      const already = (await events()).match(changes)?.length;
      await ok("one", "up", "-d");
      expect([await ids(), (await events()).match(changes)?.length]).toEqual([before, already]);

      // Names are of the networks that a service is on.
      const asked = "wget -qO- http://web/page && nslookup db >/dev/null && exit 3";
      const { code, out } = await docker.run(
        compose("one", "exec", "-T", "app", "sh", "-c", asked),
      );
      expect([code, out]).toEqual([3, "page\n"]);
      const apart = await docker.run(compose("one", "exec", "-T", "db", "nslookup", "web"));
      expect(apart.code).not.toBe(0);

      // What is read-only is, what is memory is, of the sizes asked for.
      const looked = "touch /new; cat /proc/mounts; grep elsewhere /etc/hosts";
      const inside = await docker.run(compose("one", "exec", "-T", "db", "sh", "-c", looked));
      expect(inside.err).toContain("Read-only file system");
      expect(inside.out).toMatch(/ \/tmp tmpfs rw,.*noexec.*size=1024k,mode=1770/);
      expect(inside.out).toMatch(/ \/dev\/shm tmpfs rw,.*size=2048k/);
      expect(inside.out).toContain("192.0.2.7\telsewhere");

      // A port is published on the address that was asked for, and on no other.
      const [, text = ""] =
        /^127\.0\.0\.1:(\d+)$/m.exec(await ok("one", "port", "web", "80")) ?? [];
      const port = Number(text);
      expect(await (await fetch(`http://127.0.0.1:${port}/page`)).text()).toBe("page\n");
      const others = Object.values(networkInterfaces())
        .flat()
        .flatMap((one) => (one === undefined || one.scopeid ? [] : [one.address]))
        .filter((address) => address !== "127.0.0.1");
      for (const address of [...others, "127.0.0.2"]) {
        expect([address, await answers(address, port)]).toEqual([address, false]);
      }

      // Followed until it says what it is told to.
      const follower = spawn(
        wanted.docker.path,
        compose("one", "logs", "-f", "--no-log-prefix", "db"),
        { env: { ...process.env, ...environment() }, stdio: ["ignore", "pipe", "inherit"] },
      );
      let said = "";
      follower.stdout.setEncoding("utf8").on("data", (part: string) => (said += part));
      const left = once(follower, "exit");
      await ok("one", "exec", "-T", "db", "touch", "/tmp/go");
      await expect.poll(() => said, PATIENT).toBe("db is up\nwent on\n");
      follower.kill("SIGINT");
      await left;

      // A project beside it reaches nothing of it, by no name and no address.
      const inspected = await docker.ok(
        "inspect",
        "one-web-1",
        "--format",
        "{{json .NetworkSettings.Networks}}",
      );
      const { one_front: front } = JSON.parse(inspected) as Record<string, { IPAddress: string }>;
      expect(front?.IPAddress).toMatch(/^198\.18\./);
      await ok("two", "up", "-d");
      const reaches = async (name: string, service: string, where: string): Promise<boolean> => {
        const words = [
          "timeout",
          name === "two" ? "5" : "100",
          "wget",
          "-qO-",
          `http://${where}/page`,
        ];
        return (await docker.run(compose(name, "exec", "-T", service, ...words))).code === 0;
      };
      const places = ["www", "one-web-1", front?.IPAddress ?? ""];
      for (const where of places) {
        expect([where, await reaches("two", "web", where)]).toEqual([where, false]);
        // The same attempt from within gets through.
        expect([where, await reaches("one", "app", where)]).toEqual([where, true]);
      }
      await ok("two", "down", "-t", "1");

      await ok("one", "up", "-d", "--scale", "db=2");
      expect(await ok("one", "ps", "--format", "{{.Name}}", "db")).toBe("one-db-1\none-db-2\n");
      expect(await ids()).toEqual(expect.arrayContaining(before));
      await ok("one", "down", "-v", "-t", "1");
      expect(await docker.ok("ps", "-aq")).toBe("");
      expect(await docker.ok("volume", "ls", "-q")).toBe("");
      expect(await docker.ok("network", "ls", "--filter", "type=custom", "-q")).toBe("");
      expect(await made.vmsan.list()).toEqual([]);
    },
    LONG,
  );
});

describe("testcontainers", () => {
  test(
    "for Node",
    async (context) => {
      needs(context, "packages");
      const file = join(root, "test/e2e/node/testcontainers_story.mjs");
      await story(
        process.execPath,
        [file, join(wanted.packages.path, "package.json")],
        environment(),
      );
      expect(await made.vmsan.list()).toEqual([]);
    },
    LONG,
  );

  test(
    "for Python",
    async (context) => {
      needs(context, "python");
      const file = join(root, "test/e2e/python/testcontainers_story.py");
      await story(wanted.python.path, [file], environment());
      expect(await made.vmsan.list()).toEqual([]);
    },
    LONG,
  );
});

describe("dev containers", () => {
  /** The program of dev containers, for one workspace. */
  const devcontainer = (workspace: string): ((...words: string[]) => Promise<Done>) => {
    const program = join(wanted.packages.path, "node_modules/@devcontainers/cli/devcontainer.js");
    const cli = new DockerCli(process.execPath, () => ({
      ...environment(),
      // It runs the docker command line, and asks a server for a list that nobody here needs.
      PATH: `${join(wanted.docker.path, "..")}:${process.env["PATH"] ?? ""}`,
    }));
    return async (verb, ...words) =>
      await cli.run([program, verb, "--workspace-folder", workspace, ...words]);
  };
  /** A workspace with these files in its .devcontainer. */
  const workspaceOf = async (name: string, files: Record<string, unknown>): Promise<string> => {
    const workspace = join(place.path, name);
    for (const [path, content] of Object.entries(files)) {
      const file = join(workspace, ".devcontainer", path);
      await mkdir(dirname(file), { recursive: true });
      await writeFile(file, typeof content === "string" ? content : JSON.stringify(content));
    }
    return workspace;
  };
  /** A feature of their own. */
  const GREETS = {
    "greets/devcontainer-feature.json": {
      id: "greets",
      version: "1.0.0",
      name: "Greets",
      options: { greeting: { type: "string", default: "hi" } },
      containerEnv: { FEATURE: "feature" },
    },
    "greets/install.sh": "#!/bin/sh\necho $GREETING $_REMOTE_USER > /greets\n",
  };
  /** Have a container up; its ID. */
  const up = async (workspace: string): Promise<string> => {
    const { code, out, err } = await devcontainer(workspace)("up");
    expect([code, err]).toEqual([0, err]);
    return (JSON.parse(out) as { containerId: string }).containerId;
  };

  test(
    "of an image: `devcontainer up` and `exec`",
    async (context) => {
      needs(context, "docker", "packages");
      const postCreateCommand = "echo created > made";
      const workspace = await workspaceOf("work", {
        "devcontainer.json": { image: "alpine", postCreateCommand, remoteEnv: { WORD: "word" } },
      });
      const containerId = await up(workspace);
      const words = ["sh", "-c", "echo $WORD; pwd; cat made; exit 3"];
      const { code, out } = await devcontainer(workspace)("exec", ...words);
      expect([code, out]).toEqual([3, "word\n/workspaces/work\ncreated\n"]);
      await docker.ok("rm", "-f", containerId);
    },
    LONG,
  );

  test(
    "of a compose file, with a feature",
    async (context) => {
      needs(context, "docker", "compose", "packages");
      const workspace = await workspaceOf("composed", {
        "devcontainer.json": {
          dockerComposeFile: "compose.yaml",
          service: "app",
          workspaceFolder: "/workspace",
          features: { "./greets": { greeting: "hello" } },
        },
        "compose.yaml": {
          services: { app: { image: "alpine", command: "sleep 9999", volumes: ["..:/workspace"] } },
        },
        ...GREETS,
      });
      await up(workspace);
      const words = ["sh", "-c", "cat /greets; echo $FEATURE; ls -a /workspace"];
      const { code, out } = await devcontainer(workspace)("exec", ...words);
      expect([code, out.split("\n")]).toEqual([
        0,
        expect.arrayContaining(["hello root", "feature", ".devcontainer"]) as string[],
      ]);
      await docker.ok("compose", "-p", "composed_devcontainer", "down", "-t", "0");
    },
    LONG,
  );

  test(
    "of a Dockerfile, with a feature, as a user, with mounts; it is there again when it was stopped",
    async (context) => {
      needs(context, "docker", "packages");
      const workspace = await workspaceOf("made", {
        "devcontainer.json": {
          build: { dockerfile: "Dockerfile", args: { WORD: "argument" } },
          features: { "./greets": { greeting: "hello" } },
          remoteUser: "dev",
          containerEnv: { PLACE: "container" },
          mounts: [
            "source=${localWorkspaceFolder}/.devcontainer,target=/config,type=bind",
            { source: "devcontainer-cache", target: "/cache", type: "volume" },
          ],
          forwardPorts: [3000],
          runArgs: ["--init", "--cap-add=SYS_PTRACE"],
          postCreateCommand: "id -un > /tmp/created",
          postStartCommand: { one: "echo one >> /tmp/one", two: "echo two >> /tmp/two" },
        },
        Dockerfile: [
          "FROM alpine",
          "ARG WORD",
          "RUN echo $WORD > /word && chmod 1777 /tmp && mkdir -p /home/dev && chown 1500:1500 /home/dev",
          "RUN echo dev:x:1500:1500::/home/dev:/bin/sh >> /etc/passwd && echo dev:x:1500: >> /etc/group",
        ].join("\n"),
        ...GREETS,
      });
      const containerId = await up(workspace);
      const look =
        "id -un; echo $PLACE $FEATURE; cat /word /greets /tmp/created; head -n 1 /config/Dockerfile; test -d /cache";
      const seen = "dev\ncontainer feature\nargument\nhello dev\ndev\nFROM alpine\n";
      expect(await devcontainer(workspace)("exec", "sh", "-c", look)).toMatchObject({
        code: 0,
        out: seen,
      });
      await docker.ok("stop", "-t", "0", containerId);
      expect(await up(workspace)).toBe(containerId);
      expect(
        await devcontainer(workspace)("exec", "cat", "/tmp/one", "/tmp/two", "/tmp/created"),
      ).toMatchObject({ code: 0, out: "one\none\ntwo\ntwo\ndev\n" });
      await docker.ok("rm", "-f", containerId);
      await docker.ok("volume", "rm", "devcontainer-cache");
    },
    LONG,
  );
});

test("dockerode, on the fake driver", async (context) => {
  needs(context, "packages");
  const file = join(root, "test/e2e/node/dockerode_story.mjs");
  const env = { DOCKER_HOST: fakeGateway?.docker ?? "" };
  await story(process.execPath, [file, join(wanted.packages.path, "package.json")], env);
});
