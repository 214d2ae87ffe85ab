/**
 * A story of some ninety commands of Docker's own command line, with what Docker documents that they print. On the fake
 * driver, where commands "in a container" run on this host: guests that boot are docker.test.ts's.
 */
import { once } from "node:events";
import { spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { DockerCli, findDocker } from "../fixtures/docker-cli.ts";
import { fakeEngine } from "../fixtures/docker-engine.ts";

const engine = fakeEngine();
let missing = "";
let program = "";
let docker: DockerCli;
const environment = (): Record<string, string> => ({
  DOCKER_HOST: `unix://${engine.socketPath}`,
  DOCKER_CONFIG: engine.place.path,
});

beforeAll(async () => {
  program = await findDocker().catch((error: unknown) => {
    missing = `there is no docker command line: ${String(error).slice(0, 300)}`;
    return "";
  });
  docker = new DockerCli(program, environment);
});

const ID = /^[0-9a-f]{64}\n$/;
const lines = (text: string): string[] => text.split("\n").filter((line) => line !== "");

describe("the docker command line, command by command", () => {
  test("the engine", async (context) => {
    context.skip(program === "", missing);
    expect(await docker.ok("version", "--format", "{{.Server.Arch}}")).toMatch(/^(amd64|arm64)\n$/);
    expect(await docker.ok("info", "--format", "{{.OSType}} {{.Containers}}")).toBe("linux 0\n");
    expect(
      await docker.ok("context", "create", "here", "--docker", `host=unix://${engine.socketPath}`),
    ).toBe("here\n");
    const plain = { DOCKER_HOST: "" };
    expect((await docker.run(["--context", "here", "ps", "-q"], "", plain)).code).toBe(0);
    expect(await docker.ok("context", "rm", "here")).toBe("here\n");
    expect(lines(await docker.ok("system", "df", "--format", "{{.Type}} {{.TotalCount}}"))).toEqual(
      ["Images 1", "Containers 0", "Local Volumes 0", "Build Cache 0"],
    );
    await docker.fails("asks registries for images by name alone", "search", "alpine");
    await docker.fails("This node is not a swarm manager", "service", "ls");
    await docker.fails(
      "plugins run on the host",
      "plugin",
      "install",
      "--grant-all-permissions",
      "x",
    );
    expect(await docker.ok("plugin", "ls", "-q")).toBe("");
  });

  test("images", async (context) => {
    context.skip(program === "", missing);
    const id = (await docker.ok("images", "-q", "--no-trunc", "alpine")).trim();
    expect(id).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(await docker.ok("tag", "alpine", "one/two:3")).toBe("");
    expect(
      lines(await docker.ok("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")).toSorted(),
    ).toEqual(["alpine:latest", "one/two:3"]);
    expect(await docker.ok("images", "-q", "--no-trunc", "--filter", "reference=one/*")).toBe(
      `${id}\n`,
    );
    expect(await docker.ok("image", "inspect", "one/two:3", "--format", "{{.Id}}")).toBe(`${id}\n`);
    expect(await docker.ok("history", "-q", "--no-trunc", "alpine")).toContain(id);
    expect(await docker.ok("rmi", "one/two:3")).toBe("Untagged: one/two:3\n");
    await docker.fails("No such image: one/two:3", "rmi", "one/two:3");
    const tar = join(engine.place.path, "saved.tar");
    await docker.ok("tag", "alpine", "copy:1");
    expect(await docker.ok("save", "-o", tar, "alpine", "copy:1")).toBe("");
    expect(await docker.ok("rmi", "copy:1")).toContain("Untagged: copy:1");
    expect(lines(await docker.ok("load", "-q", "-i", tar)).toSorted()).toEqual([
      "Loaded image: alpine:latest",
      "Loaded image: copy:1",
    ]);
    const files = join(engine.place.path, "tree.tar");
    await writeFile(join(engine.place.path, "hello"), "hello\n");
    const packed = spawn("tar", ["-C", engine.place.path, "-cf", files, "hello"]);
    await once(packed, "close");
    expect(
      await docker.ok("import", "-c", 'CMD ["/hello"]', "-m", "made", files, "imported:1"),
    ).toMatch(/^sha256:[0-9a-f]{64}\n$/);
    const piped = await docker.run(["import", "-", "imported:2"], await readFile(files));
    expect([piped.code, piped.out]).toEqual([0, expect.stringMatching(/^sha256:/)]);
    expect(
      await docker.ok(
        "image",
        "inspect",
        "imported:1",
        "--format",
        "{{json .Config.Cmd}} {{.Comment}}",
      ),
    ).toContain('["/hello"]');
    await docker.ok("rmi", "imported:1", "imported:2", "copy:1");
    expect(await docker.ok("image", "prune", "-f")).toMatch(/Total reclaimed space: /);
  });

  test("volumes and networks", async (context) => {
    context.skip(program === "", missing);
    expect(await docker.ok("volume", "create", "--label", "a=b", "data")).toBe("data\n");
    expect(await docker.ok("volume", "ls", "-q", "--filter", "label=a=b")).toBe("data\n");
    expect(await docker.ok("volume", "inspect", "data", "--format", "{{.Name}} {{.Driver}}")).toBe(
      "data local\n",
    );
    expect(await docker.ok("volume", "rm", "data")).toBe("data\n");
    await docker.fails(/no such volume/i, "volume", "inspect", "data");
    expect(await docker.ok("network", "create", "--label", "x=y", "net")).toMatch(ID);
    await docker.fails("already exists", "network", "create", "net");
    expect(
      lines(await docker.ok("network", "ls", "--format", "{{.Name}} {{.Driver}}")).toSorted(),
    ).toEqual(["bridge bridge", "host host", "net bridge", "none null"]);
    expect(
      await docker.ok("network", "inspect", "net", "--format", "{{.Driver}} {{.Internal}}"),
    ).toBe("bridge false\n");
    expect(
      await docker.ok(
        "create",
        "--name",
        "member",
        "--network",
        "net",
        "--network-alias",
        "al",
        "alpine",
        "true",
      ),
    ).toMatch(ID);
    expect(
      await docker.ok(
        "inspect",
        "member",
        "--format",
        "{{json .NetworkSettings.Networks.net.Aliases}}",
      ),
    ).toContain('"al"');
    expect(await docker.ok("rm", "member")).toBe("member\n");
    expect(await docker.ok("network", "rm", "net")).toBe("net\n");
    expect(await docker.ok("network", "prune", "-f")).toBe("");
    expect(await docker.ok("volume", "prune", "-f")).toMatch(/Total reclaimed space: 0B/);
  });

  test("run: input, output, status, and what the flags say", async (context) => {
    context.skip(program === "", missing);
    const rm = ["run", "--rm"];
    expect(await docker.run([...rm, "-i", "alpine", "cat"], "typed")).toMatchObject({
      code: 0,
      out: "typed",
    });
    expect((await docker.run([...rm, "alpine", "sh", "-c", "exit 7"])).code).toBe(7);
    expect((await docker.run([...rm, "alpine", "no-such-program"])).code).toBe(127);
    const file = join(engine.place.path, "env");
    await writeFile(file, "FROM_FILE=1\nOWN=file\n");
    const env = ["--env-file", file, "-e", "OWN=flag"];
    expect(await docker.ok(...rm, ...env, "alpine", "sh", "-c", "echo $FROM $FROM_FILE $OWN")).toBe(
      "image 1 flag\n",
    );
    expect(await docker.ok(...rm, "--entrypoint", "echo", "alpine", "from", "there")).toBe(
      "from there\n",
    );
    expect(await docker.ok(...rm, "-w", "/tmp", "alpine", "pwd")).toBe("/tmp\n");
    const named = ["--hostname", "db", "--name", "quoted"];
    const words = ["alpine", "sh", "-c", "echo $HOSTNAME; exec sleep 300"];
    await docker.ok("run", "-d", ...named, ...words);
    await expect
      .poll(async () => await docker.ok("logs", "quoted"), { timeout: 60_000 })
      .toBe("db\n");
    const listed = await docker.ok("ps", "--no-trunc", "--format", "{{.Command}}");
    expect(listed).toBe(`"sh -c 'echo $HOSTNAME; exec sleep 300'"\n`);
    // Whoever looks after a KILL sees it ended.
    await docker.ok("kill", "quoted");
    expect(await docker.ok("ps", "-a", "--format", "{{.Status}}")).toMatch(/^Exited \(137\)/);
    await docker.ok("rm", "quoted");
    const harmless = [
      "--init",
      "--privileged",
      "--cap-add",
      "NET_ADMIN",
      "--shm-size",
      "64m",
      "--oom-score-adj",
      "1",
      "--read-only=false",
    ];
    expect(await docker.ok(...rm, ...harmless, "alpine", "echo", "fine")).toBe("fine\n");
    const limits = ["--ulimit", "nofile=100:200", "-u", "7:8"];
    const looked = ["sh", "-c", "ulimit -n; ulimit -Hn; id -u; id -g"];
    expect(await docker.ok(...rm, ...limits, "alpine", ...looked)).toBe("100\n200\n7\n8\n");
    const absent = await docker.run([...rm, ...limits, "alpine", "no-such-program"]);
    expect(absent.code).toBe(127);
    const warned = await docker.run([
      ...rm,
      "--cap-drop",
      "ALL",
      "--dns",
      "1.1.1.1",
      "alpine",
      "true",
    ]);
    expect([warned.code, warned.err]).toEqual([0, expect.stringMatching(/Not applied: --dns/)]);
    const refused: [string[], string][] = [
      [["--gpus", "all"], "--gpus"],
      [["--device", "/dev/null"], "--device"],
      [["--pid", "host"], "--pid host"],
      [["--network", "host"], "--network host"],
      [["-v", `${engine.socketPath}:/s`], "it is a socket"],
      [["--volumes-from", "x"], "--volumes-from"],
    ];
    await docker.fails(
      "does not match the specified platform",
      "create",
      "--pull",
      "never",
      "--platform",
      "linux/s390x",
      "alpine",
      "true",
    );
    for (const [flags, words] of refused) {
      const { code, err } = await docker.run([...rm, ...flags, "alpine", "true"]);
      expect([flags, code, err]).toEqual([flags, 125, expect.stringContaining(words)]);
    }
    const idFile = join(engine.place.path, "cid");
    const id = await docker.ok(
      "run",
      "-d",
      "--cidfile",
      idFile,
      "--name",
      "short",
      "alpine",
      "true",
    );
    expect(await readFile(idFile, "utf8")).toBe(id.trim());
    expect(await docker.ok("wait", "short")).toBe("0\n");
    expect(await docker.ok("rm", "-v", "short")).toBe("short\n");
    expect(await docker.ok("ps", "-aq")).toBe("");
  });

  test("one container from its making to its end", async (context) => {
    context.skip(program === "", missing);
    const dir = join(engine.place.path, "work");
    await mkdir(dir);
    const script = `echo one; echo two >&2; while ! [ -e ${dir}/go ]; do sleep 0.05; done; echo three; exec sleep 300`;
    const flags = [
      "-l",
      "app=web",
      "-p",
      "127.0.0.1::80",
      "--expose",
      "90",
      "--restart",
      "on-failure:2",
      "--stop-timeout",
      "20",
      "--health-cmd",
      `test -e ${dir}/go`,
      "--health-interval",
      "100ms",
    ];
    expect(
      await docker.ok("create", "--name", "web", ...flags, "alpine", "sh", "-c", script),
    ).toMatch(ID);
    expect(await docker.ok("ps", "-q")).toBe("");
    expect(await docker.ok("ps", "-a", "--format", "{{.Names}} {{.Status}}")).toBe("web Created\n");
    await docker.fails("already in use by container", "create", "--name", "web", "alpine", "true");
    expect(await docker.ok("start", "web")).toBe("web\n");
    expect(await docker.ok("start", "web")).toBe("web\n");
    expect(
      await docker.ok(
        "ps",
        "--filter",
        "label=app=web",
        "--filter",
        "status=running",
        "--format",
        "{{.Image}}",
      ),
    ).toBe("alpine\n");
    expect(await docker.ok("ps", "--filter", "name=nobody", "-q")).toBe("");
    expect(await docker.ok("port", "web", "80/tcp")).toMatch(/^127\.0\.0\.1:\d+\n$/);
    expect(
      await docker.ok(
        "inspect",
        "-f",
        "{{.HostConfig.RestartPolicy.Name}} {{.Config.StopTimeout}}",
        "web",
      ),
    ).toBe("on-failure 20\n");
    expect(
      await docker.ok("container", "inspect", "-f", "{{.State.Health.Status}}", "web"),
    ).toMatch(/^(starting|unhealthy)\n$/);
    await expect
      .poll(async () => await docker.ok("logs", "web"), { timeout: 60_000 })
      .toBe("one\n");
    await writeFile(join(dir, "go"), "");
    await expect
      .poll(async () => await docker.ok("logs", "--tail", "1", "web"), { timeout: 60_000 })
      .toBe("three\n");
    await expect
      .poll(async () => await docker.ok("ps", "--format", "{{.Status}}"), { timeout: 60_000 })
      .toContain("(healthy)");
    expect(await docker.ok("logs", "-t", "--tail", "1", "web")).toMatch(
      /^\d{4}-\d\d-\d\dT[\d:.]+Z three\n$/,
    );
    expect(await docker.ok("logs", "--since", "1h", "--until", "2000-01-01T00:00:00Z", "web")).toBe(
      "",
    );
    expect((await docker.run(["logs", "web"])).err).toBe("two\n");
    expect(await docker.ok("exec", "web", "echo", "said")).toBe("said\n");
    expect(
      await docker.run(
        ["exec", "-i", "-e", "A=1", "-w", "/tmp", "web", "sh", "-c", "cat; echo $A; pwd; exit 3"],
        "in\n",
      ),
    ).toMatchObject({ code: 3, out: "in\n1\n/tmp\n" });
    expect(await docker.ok("exec", "-d", "web", "touch", join(dir, "detached"))).toBe("");
    expect(await docker.ok("top", "web", "-eo", "pid,args")).toContain("sleep 300");
    expect(await docker.ok("stats", "--no-stream", "--format", "{{.Name}}", "web")).toBe("web\n");
    expect(await docker.ok("rename", "web", "site")).toBe("");
    expect(await docker.ok("pause", "site")).toBe("site\n");
    expect(await docker.ok("ps", "--format", "{{.Status}}")).toContain("(Paused)");
    await docker.fails("is paused", "exec", "site", "true");
    expect(await docker.ok("unpause", "site")).toBe("site\n");
    expect(await docker.ok("update", "--restart", "no", "site")).toBe("site\n");
    await docker.fails("while it is stopped", "update", "--memory", "1g", "site");
    // Files, both ways, as directories and as archives.
    await writeFile(join(dir, "up"), "content");
    await docker.ok("cp", join(dir, "up"), `site:${dir}/copied`);
    expect(await readFile(join(dir, "copied"), "utf8")).toBe("content");
    await docker.ok("cp", `site:${dir}/copied`, join(dir, "down"));
    expect(await readFile(join(dir, "down"), "utf8")).toBe("content");
    const archive = await docker.ok("cp", `site:${dir}/copied`, "-");
    expect(archive).toContain("copied");
    await mkdir(join(dir, "into"));
    expect(
      (await docker.run(["cp", "-", `site:${dir}/into`], Buffer.from(archive, "latin1"))).code,
    ).toBe(0);
    expect(await readFile(join(dir, "into/copied"), "utf8")).toBe("content");
    await docker.fails(
      /Could not find the file|No such container:path/,
      "cp",
      "site:/no/such",
      "-",
    );
    await docker.fails("stop the container before removing", "rm", "site");
    expect(await docker.ok("kill", "-s", "WINCH", "site")).toBe("site\n");
    expect(await docker.ok("stop", "site")).toBe("site\n");
    expect(await docker.ok("stop", "site")).toBe("site\n");
    expect(await docker.ok("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "site")).toBe(
      "exited 143\n",
    );
    expect(await docker.ok("wait", "site")).toBe("143\n");
    await docker.fails("is not running", "exec", "site", "true");
    await docker.fails("is not running", "kill", "site");
    expect(await docker.ok("update", "--memory", "300m", "site")).toBe("site\n");
    expect(await docker.ok("restart", "-t", "20", "site")).toBe("site\n");
    expect(await docker.ok("kill", "site")).toBe("site\n");
    expect(await docker.ok("wait", "site")).toBe("137\n");
    const until = String(Math.ceil(Date.now() / 1000) + 1);
    const events = await docker.ok(
      "events",
      "--since",
      "1",
      "--until",
      until,
      "--filter",
      "container=site",
      "--filter",
      "event=die",
      "--format",
      "{{.Action}} {{.Actor.Attributes.exitCode}}",
    );
    expect(lines(events)).toEqual(["die 143", "die 137"]);
    expect(await docker.ok("rm", "-f", "site")).toBe("site\n");
    await docker.fails(/No such (object|container): site/, "inspect", "site");
    expect(await docker.ok("create", "--name", "left", "alpine", "true")).toMatch(ID);
    expect(await docker.ok("container", "prune", "-f")).toContain("Deleted Containers:");
    expect(await docker.ok("system", "prune", "-f")).toMatch(/Total reclaimed space: /);
    expect(await docker.ok("ps", "-aq")).toBe("");
  });

  test("attach and logs -f end with the container", async (context) => {
    context.skip(program === "", missing);
    await docker.ok(
      "run",
      "-di",
      "--name",
      "typed",
      "alpine",
      "sh",
      "-c",
      "read a; echo got $a; exit 5",
    );
    const following = docker.run(["logs", "-f", "typed"]);
    expect(await docker.run(["attach", "typed"], "word\n")).toMatchObject({
      code: 5,
      out: "got word\n",
    });
    expect(await following).toMatchObject({ code: 0, out: "got word\n" });
    await docker.ok("rm", "-f", "typed");
  });
});
