/**
 * Docker's own command line, unmodified, against `vmsan serve --docker`: containers in guests that really boot, few of
 * them and much in each. The client is the machine's, else Debian's, unpacked into .cache without its daemon. Behind it, over
 * TLS and on the fake driver, both that and the Python package `docker` (python/docker_story.py).
 */
import { execFile, spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGateway } from "../../../src/gateway/gateway.ts";
import type { Gateway } from "../../../src/gateway/gateway.ts";
import { isAlive, identityOf } from "../../../src/util/process-identity.ts";
import { Authority } from "../../fixtures/certificates.ts";
import { DockerCli, findDocker } from "../../fixtures/docker-cli.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { pythonWith } from "../../fixtures/venv.ts";
import { busyboxLayer, tool, umociImage } from "../images.ts";
import { root, vmsan, vmsanBin, vmsanOk } from "../support.ts";

const run = promisify(execFile);

/** The docker command line; undefined: there is none, and why. */
let docker: string | undefined;
let missing = "";
let commands: DockerCli;

const place = temporary();
const made = installation("kernel");
let archive: string;
let served: ChildProcess | undefined;

/** `vmsan serve --docker` as a process of its own, until it serves. */
async function serve(): Promise<void> {
  const child = spawn(vmsanBin, ["serve", "--docker", "--listen", "127.0.0.1:0", "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
    env: { ...process.env, VMSAN_DIR: made.dir },
  });
  served = child;
  await Promise.race([
    once(child.stdout, "data"),
    once(child, "exit").then(() => Promise.reject(new Error("vmsan serve has ended"))),
  ]);
}

/** Kill the server at once, and wait until it is gone. */
async function killServer(): Promise<void> {
  const child = served;
  served = undefined;
  if (child?.pid === undefined || child.exitCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

/** A docker command. */
const cli: DockerCli["run"] = async (...args) => await commands.run(...args);
/** One that must succeed; what it prints. */
const ok: DockerCli["ok"] = async (...args) => await commands.ok(...args);

beforeAll(async () => {
  docker = await findDocker().catch((error: unknown) => {
    missing = `there is no docker command line: ${String(error).slice(0, 300)}`;
    return undefined;
  });
  commands = new DockerCli(docker ?? "", () => ({
    DOCKER_HOST: `unix://${made.dir}/docker.sock`,
    DOCKER_CONFIG: place.path,
  }));
  const layout = await umociImage(
    join(place.path, "image"),
    [
      busyboxLayer,
      async (rootfs) => {
        for (const name of ["httpd", "wget", "seq", "hostname", "ps", "stty", "touch", "tty"]) {
          await tool("ln", "-s", "busybox", join(rootfs, "bin", name));
        }
        await mkdir(join(rootfs, "tmp"));
      },
    ],
    { cmd: ["sh"], env: ["FROM=image", "PATH=/bin"] },
  );
  archive = join(place.path, "alpine.tar");
  await tool("skopeo", "copy", "-q", layout, `docker-archive:${archive}:alpine:latest`);
  if (docker !== undefined) await serve();
});

afterAll(async () => await killServer());

describe("the docker command line", () => {
  test("finds the engine, loads an image, and says what it is", async (context) => {
    context.skip(docker === undefined, missing);
    expect(await ok("version", "--format", "{{.Server.Os}}")).toBe("linux\n");
    expect(await ok("info", "--format", "{{.Driver}}")).toBe("vmsan\n");
    expect(await ok("load", "-i", archive)).toContain("Loaded image: alpine:latest");
    expect(await ok("images", "--format", "{{.Repository}}:{{.Tag}}")).toBe("alpine:latest\n");
    expect(await ok("image", "inspect", "alpine", "--format", "{{json .Config.Cmd}}")).toBe(
      '["sh"]\n',
    );
    await ok("tag", "alpine", "mine/app:1");
    expect(await ok("rmi", "mine/app:1")).toContain("Untagged: mine/app:1");
    const away = await cli(["run", "--rm", "--network", "host", "alpine", "true"]);
    expect([away.code, away.err]).toEqual([125, expect.stringContaining("microVM")]);
    expect(await vmsanOk(["docker-env"], { dir: made.dir })).toContain(
      `unix://${made.dir}/docker.sock`,
    );
  });

  test("docker run: outputs, input, exit code, and nothing left", async (context) => {
    context.skip(docker === undefined, missing);
    const script = "echo $FROM $OWN; pwd; id -u; cat; echo err >&2; exit 5";
    const args = [
      "run",
      "--rm",
      "-i",
      "-e",
      "OWN=1",
      "-w",
      "/tmp",
      "-u",
      "7:8",
      "alpine",
      "sh",
      "-c",
      script,
    ];
    expect(await cli(args, "typed\n")).toEqual({
      code: 5,
      out: "image 1\n/tmp\n7\ntyped\n",
      err: "err\n",
    });
    expect(await ok("ps", "-aq")).toBe("");
    expect(await made.vmsan.list()).toEqual([]);
  });

  test("a container that stays: commands, files, ports, volumes, its log through a killed gateway and daemon", async (context) => {
    context.skip(docker === undefined, missing);
    const shared = join(place.path, "shared");
    await mkdir(shared);
    const config = join(place.path, "app.conf");
    await writeFile(config, "first\n");
    await ok("network", "create", "net-1");
    await ok("volume", "create", "data-1");
    const script =
      "[ -e /v/page ] || echo page > /v/page; httpd -p 80 -h /v; while ! [ -e /tmp/go ]; do sleep 0.1; done; seq 1 40000; cat /tmp/go; while true; do sleep 1; done";
    const words = [
      "-v",
      "data-1:/v",
      "-v",
      `${shared}:/h`,
      "-v",
      `${config}:/etc/app.conf:ro`,
      "-p",
      "80",
      "-l",
      "k=v",
      "alpine",
      "sh",
      "-c",
      script,
    ];
    await ok(
      "run",
      "-d",
      "--name",
      "web",
      "--network",
      "net-1",
      "--network-alias",
      "www",
      ...words,
    );
    expect(await ok("ps", "--filter", "label=k=v", "--format", "{{.Names}} {{.Status}}")).toMatch(
      /^web Up /,
    );
    const { code, out } = await cli(
      ["exec", "-i", "-e", "X=2", "web", "sh", "-c", "cat > /h/file; echo $FROM $X; exit 4"],
      "in",
    );
    expect([code, out]).toEqual([4, "image 2\n"]);
    expect(await readFile(join(shared, "file"), "utf8")).toBe("in");
    expect((await cli(["exec", "web", "no-such-program"])).code).toBe(127);
    // One file, and nothing beside it; it is the host's, also when that changes it.
    expect(await ok("exec", "web", "sh", "-c", "cat /etc/app.conf; ls /etc")).toMatch(
      /^first\n(?!.*shared)(.*\n)*app\.conf\n/,
    );
    await writeFile(config, "second\n");
    await expect
      .poll(async () => await ok("exec", "web", "cat", "/etc/app.conf"), { timeout: 60_000 })
      .toBe("second\n");
    expect((await cli(["exec", "web", "sh", "-c", "echo no > /etc/app.conf"])).err).toContain(
      "Read-only file system",
    );
    const [, port] = /127\.0\.0\.1:(\d+)/.exec(await ok("port", "web", "80/tcp")) ?? [];
    const page = async (): Promise<string> =>
      await (await fetch(`http://127.0.0.1:${port}/page`)).text();
    await expect.poll(page, { timeout: 60_000 }).toBe("page\n");
    // The container's processes, not the kernel's threads nor the agent.
    const processes = await ok("top", "web");
    expect(processes).toContain("httpd");
    expect(processes).not.toMatch(/kthreadd|\/init/);

    // Files there and back.
    const tree = join(place.path, "tree");
    await mkdir(join(tree, "sub"), { recursive: true });
    await writeFile(join(tree, "sub/a"), "content");
    await ok("cp", tree, "web:/tmp/");
    await ok("cp", "web:/tmp/tree/sub/.", join(place.path, "back"));
    expect(await readFile(join(place.path, "back/a"), "utf8")).toBe("content");
    expect((await cli(["cp", "web:/none", "-"])).err).toMatch(
      /Could not find the file|No such container:path/,
    );

    // What it has made is its own: not what is mounted, nor what was there.
    const size = ["inspect", "--size", "web", "--format", "{{.SizeRw}} {{.SizeRootFs}}"];
    const [before = 0, whole = 0] = (await ok(...size)).split(" ").map(Number);
    await ok("exec", "web", "sh", "-c", "head -c 3000000 /dev/zero | tee /v/zeros > /tmp/zeros");
    expect((await ok(...size)).split(" ").map(Number)).toEqual([
      before + 3_000_000,
      whole + 3_000_000,
    ]);
    expect(await ok("ps", "--size", "--format", "{{.Size}}")).toMatch(/^3MB \(virtual /);

    // While it prints, gateway and daemon are killed.
    await ok("exec", "web", "sh", "-c", "echo go > /tmp/new; busybox mv /tmp/new /tmp/go");
    await killServer();
    const info = await made.vmsan.daemon.info();
    const identity = info === undefined ? undefined : identityOf(info.pid);
    if (identity !== undefined) {
      process.kill(identity.pid, "SIGKILL");
      await expect.poll(() => isAlive(identity), { timeout: 60_000 }).toBe(false);
    }
    await serve();
    expect(await ok("inspect", "web", "--format", "{{.State.Status}}")).toBe("running\n");
    await expect
      .poll(async () => (await ok("logs", "--tail", "1", "web")).trim(), { timeout: 120_000 })
      .toBe("go");
    const lines = Array.from({ length: 40_000 }, (_, index) => `${index + 1}\n`);
    expect(await ok("logs", "web")).toBe(`${lines.join("")}go\n`);

    // Another one on the network finds it by its names; one that is on none of them does not.
    const near = "wget -qO- http://web/page http://www/page";
    expect(await ok("run", "--rm", "--network", "net-1", "alpine", "sh", "-c", near)).toBe(
      "page\npage\n",
    );

    // Stopped and started it has its files and its volume; its main process was ended by TERM.
    await ok("stop", "-t", "30", "web");
    expect(await ok("ps", "-a", "--format", "{{.Status}}")).toMatch(/^Exited \(143\)/);
    const { vms } = JSON.parse(await vmsanOk(["list", "--json"], { dir: made.dir })) as {
      vms: { status: string }[];
    };
    expect(vms.map(({ status }) => status)).toEqual(["stopped"]);
    await ok("start", "web");
    expect(await ok("exec", "web", "cat", "/tmp/tree/sub/a", "/v/page")).toBe("contentpage\n");
    await ok("rm", "-f", "web");
    await ok("network", "rm", "net-1");
    await ok("volume", "rm", "data-1");
    expect(await ok("ps", "-aq")).toBe("");
    expect((await vmsan(["list", "--json"], { dir: made.dir })).stdout.toString()).toContain(
      '"vms":[]',
    );
  });
});

describe("over TCP, to clients with a certificate, on the fake driver", () => {
  let python = "";
  const fake = installation("nothing");
  let gateway: Gateway | undefined;
  let absent: string | undefined;
  let secure: Record<string, string> = {};

  beforeAll(async () => {
    python = await pythonWith("docker-python-7.2.0").catch((error: unknown) => {
      absent = `the Python package docker cannot be installed: ${String(error).slice(0, 300)}`;
      return "";
    });
    await fake.vmsan.images.load(archive);
    const authority = new Authority(join(place.path, "authority"));
    const server = authority.issue("server", "/CN=server", ["IP:127.0.0.1"]);
    const client = authority.issue("client", "/CN=client");
    // Names that Docker's clients look for.
    const certs = join(place.path, "certs");
    await mkdir(certs);
    await copyFile(authority.certFile, join(certs, "ca.pem"));
    await copyFile(client.certFile, join(certs, "cert.pem"));
    await copyFile(client.keyFile, join(certs, "key.pem"));
    gateway = await startGateway({
      dir: fake.dir,
      listen: "127.0.0.1:0",
      driver: "fake",
      tls: { cert: server.certFile, key: server.keyFile },
      docker: { listen: "tcp://127.0.0.1:0", clientCa: authority.certFile },
    });
    secure = {
      DOCKER_HOST: gateway.docker ?? "",
      DOCKER_TLS_VERIFY: "1",
      DOCKER_CERT_PATH: certs,
    };
  });

  afterAll(async () => await gateway?.close());

  test("the command line gets all that comes after its own end of input; without a certificate nothing", async (context) => {
    context.skip(docker === undefined, missing);
    const words = ["run", "--rm", "alpine", "sh", "-c", "sleep 1; echo late; exit 4"];
    expect(await cli(words, "", secure)).toEqual({ code: 4, out: "late\n", err: "" });
    const bare = { DOCKER_HOST: secure["DOCKER_HOST"] ?? "", DOCKER_TLS: "1" };
    expect((await cli(["version", "--format", "{{.Server.Os}}"], "", bare)).code).not.toBe(0);
  });

  test("the Python package docker", async (context) => {
    context.skip(absent !== undefined, absent);
    const story = join(root, "test/e2e/python/docker_story.py");
    // These win over what docker-py is told, in the library below it.
    const { REQUESTS_CA_BUNDLE: _bundle, CURL_CA_BUNDLE: _curl, ...own } = process.env;
    const env = { ...own, ...secure };
    const { stdout } = await run(python, [story], { env });
    expect(stdout).toBe("all is well\n");
  });
});
