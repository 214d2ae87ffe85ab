/** A gateway in front of a cluster: E2B's SDK and the docker command line, unmodified, with pods for VMs. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommandExitError, FileNotFoundError, NotFoundError, Sandbox } from "e2b";
import type { ConnectionOpts } from "e2b";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Vmsan } from "../../src/client/vmsan.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import type { Gateway } from "../../src/gateway/gateway.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { DockerCli, findDocker } from "../fixtures/docker-cli.ts";
import { writeTemplate } from "../fixtures/e2b-template.ts";
import { CLUSTER_IMAGE, fakeCluster } from "../fixtures/fake-cluster.ts";
import { temporary } from "../fixtures/ladder.ts";

// The first VM of an image waits for its disk, on a machine that has other work too.
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const place = temporary();
const cluster = fakeCluster(place);
let dir: string;
let gateway: Gateway;
let options: ConnectionOpts;
let docker: DockerCli;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-front-"));
  const { kubeconfig } = cluster;
  gateway = await startGateway({ dir, listen: "127.0.0.1:0", cluster: { kubeconfig }, docker: {} });
  const directory = layoutOf(dir).gateway;
  await writeTemplate(directory, "small", CLUSTER_IMAGE);
  const { text } = await new Keys(directory).create({ project: "ours" });
  options = { apiKey: `e2b_${text}`, apiUrl: gateway.url, sandboxUrl: gateway.url };
  const program = await findDocker();
  docker = new DockerCli(program, () => ({ DOCKER_HOST: gateway.docker ?? "", HOME: place.path }));
});

afterAll(async () => {
  await gateway?.close();
  await new Vmsan({ dir, start: false }).daemon.stop();
  await rm(dir, { recursive: true, force: true });
});

test("E2B's SDK: a sandbox is a pod, with commands, files, metadata, time; what is not there is said", async () => {
  const sandbox = await Sandbox.create("small", {
    ...options,
    metadata: { task: "é=&1" },
    envs: { FROM_CREATE: "a $HOME" },
    timeoutMs: 600_000,
  });
  expect(cluster.api.pods.has(`default/${sandbox.sandboxId}`)).toBe(true);
  expect(await sandbox.getInfo()).toMatchObject({ state: "running", metadata: { task: "é=&1" } });
  const { stdout } = await sandbox.commands.run('echo "$FROM_CREATE"');
  expect(stdout).toBe("a $HOME\n");
  await expect(sandbox.commands.run("exit 3")).rejects.toThrow(CommandExitError);
  const file = join(place.path, "sandbox-file");
  await sandbox.files.write(file, "content");
  expect(await sandbox.files.read(file)).toBe("content");
  await expect(sandbox.files.read(join(place.path, "none"))).rejects.toThrow(FileNotFoundError);
  const pages = Sandbox.list({ ...options, query: { metadata: { task: "é=&1" } } });
  expect((await pages.nextItems()).map(({ sandboxId }) => sandboxId)).toEqual([sandbox.sandboxId]);
  await sandbox.setTimeout(1_200_000);
  const { endAt } = await sandbox.getInfo();
  expect(endAt.getTime() - Date.now()).toBeGreaterThan(1_000_000);
  const [sample] = await sandbox.getMetrics();
  expect(sample?.memTotal).toBeGreaterThan(0);
  await expect(sandbox.pause()).rejects.toThrow("do not pause");
  expect(await sandbox.isRunning()).toBe(true);
  // A connection anew, as another process would.
  const again = await Sandbox.connect(sandbox.sandboxId, options);
  expect((await again.commands.run("echo again")).stdout).toBe("again\n");
  await sandbox.kill();
  expect(cluster.api.pods.size).toBe(0);
  await expect(Sandbox.connect(sandbox.sandboxId, options)).rejects.toThrow(NotFoundError);
});

test("Docker's command line: run, exec, cp, logs, stop, rm; what is not there is said", async () => {
  const archive = join(place.path, "image", "image.tar");
  expect(await docker.ok("load", "-i", archive)).toContain("Loaded");
  const id = (
    await docker.ok(
      "run",
      "-d",
      "--name",
      "one",
      "-e",
      "A=1",
      "alpine",
      "sh",
      "-c",
      "echo said; exec sleep 1000",
    )
  ).trim();
  expect(cluster.api.pods.has(`default/${id.slice(0, 12)}`)).toBe(true);
  await expect.poll(async () => await docker.ok("logs", "one"), { timeout: 60_000 }).toBe("said\n");
  expect(await docker.ok("exec", "one", "sh", "-c", "echo $A $FROM")).toBe("1 image\n");
  expect((await docker.run(["exec", "one", "sh", "-c", "exit 4"])).code).toBe(4);
  const [from, inside, back] = ["d-from", "d-inside", "d-back"].map((name) =>
    join(place.path, name),
  );
  await writeFile(from ?? "", "copied");
  await docker.ok("cp", from ?? "", `one:${inside}`);
  await docker.ok("cp", `one:${inside}`, back ?? "");
  expect(await readFile(back ?? "", "utf8")).toBe("copied");
  expect(await docker.ok("ps", "--format", "{{.Names}}")).toBe("one\n");
  expect(await docker.ok("top", "one")).toContain("sleep 1000");
  expect(await docker.ok("stats", "--no-stream", "--format", "{{.Name}}", "one")).toBe("one\n");
  await docker.fails("not offered on a cluster", "pause", "one");
  await docker.fails("not offered on a cluster", "diff", "one");
  await docker.ok("kill", "one");
  expect(await docker.ok("wait", "one")).toBe("137\n");
  // Its pod stays with its disk until it is removed.
  await docker.ok("start", "one");
  await expect
    .poll(async () => await docker.ok("logs", "one"), { timeout: 60_000 })
    .toBe("said\nsaid\n");
  await docker.ok("stop", "-t", "1", "one");
  await docker.ok("rm", "-f", "one");
  await docker.fails("ports: not offered on a cluster", "run", "-p", "8080:80", "alpine", "true");
  await docker.fails("not offered on a cluster", "volume", "create", "data");
  await docker.fails("not offered on a cluster", "network", "create", "app");
  expect(await docker.ok("run", "--rm", "alpine")).toBe("image\n");
  // Started again by its policy, in the pod that it has.
  const counted = join(place.path, "counted");
  const script = `echo x >> ${counted}; [ $(wc -l < ${counted}) -ge 2 ]`;
  await docker.ok(
    "run",
    "-d",
    "--name",
    "two",
    "--restart=on-failure:3",
    "alpine",
    "sh",
    "-c",
    script,
  );
  await expect
    .poll(
      async () => await docker.ok("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "two"),
      {
        timeout: 120_000,
      },
    )
    .toBe("exited 1\n");
  expect(await readFile(counted, "utf8")).toBe("x\nx\n");
  const left = await docker.ok("ps", "-aq");
  if (left !== "") await docker.ok("rm", "-f", ...left.trim().split("\n"));
  await expect.poll(() => cluster.api.pods.size, { timeout: 60_000 }).toBe(0);
});
