/**
 * Programs as people have them (Redis, PostgreSQL, SQLite, nginx, Node.js, Python, tmux, cron; a JVM where this host
 * has a JDK), in the middle of their work and with connections to each other, to another VM and to this host: asleep
 * and awake, forked, taken back. Only with VMSAN_TEST_PROGRAMS=1: it fetches some 180 packages and takes many
 * minutes where the guest is emulated.
 */
import { cp, mkdir, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeAll, describe, expect, test } from "vitest";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { which } from "../../../src/util/which.ts";
import { kept } from "../../fixtures/kept.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { ownPort } from "../../fixtures/ports.ts";
import { tool } from "../images.ts";
import { root, vmsanOk } from "../support.ts";

const wanted = process.env["VMSAN_TEST_PROGRAMS"] === "1";
if (!wanted) {
  process.stderr.write(
    "programs: left out, since it fetches some 180 packages; VMSAN_TEST_PROGRAMS=1 runs it\n",
  );
}
const LIMIT_MS = 1_800_000;
const FILES = join(root, "test/snapshots");
const PACKAGES = [
  ["redis-server", "postgresql", "nginx-light", "nodejs", "python3", "python3-psycopg2"],
  ["cron", "tmux", "procps", "curl", "iproute2"],
].flat();
const ECHO = `perl -MIO::Socket::INET -e '
  my $s = IO::Socket::INET->new(Listen => 5, LocalAddr => "0.0.0.0", LocalPort => 7001) or die; $SIG{CHLD} = "IGNORE";
  while (my $c = $s->accept) { next if fork; while (sysread $c, my $b, 1) { syswrite $c, $b } exit }'`;

/** What each of the programs says when nothing has happened to it; the connection with another VM apart. */
const TIMER = { ticks: expect.any(Number) as number, back: 0 };
const ALL: Record<string, unknown> = {
  "redis transaction": "QUEUED",
  "redis expiry": true,
  "redis BLPOP": "item",
  "redis subscription": "told",
  "postgres transaction": "1",
  "postgres prepared": "0",
  "postgres lock": "False",
  "sqlite wal": 1001,
  "sqlite delete": 1001,
  nginx: { nginx: true },
  node: TIMER,
};
const DONE = { redis: true, postgres: "1", wal: [1001, "ok"], delete: [1001, "ok"] };
const RESET = "ConnectionResetError: [Errno 104] Connection reset by peer";

/** Of whom two clones get the same, so that docs/snapshots.md says so. */
const ALIKE = [
  ["RAND_bytes of Python's ssl", "gen_random_uuid of PostgreSQL", "random of PostgreSQL"],
  ["random of Python", "ACL GENPASS of Redis", "randomblob of SQLite"],
  ["randomUUID of Node.js", "randomBytes of Node.js", "Math.random of Node.js"],
  ["Random of Java", "Math.random of Java"],
].flat();

describe.runIf(wanted)("programs", () => {
  const made = installation("base");
  const work = temporary();
  let box: Vm;
  let jdk = false;

  /** Run a script as root, which must succeed. */
  async function sh(vm: Vm, script: string): Promise<string> {
    const { exitCode, stdout, stderr } = await vm.exec(["sh", "-c", script], { user: "root" });
    expect(exitCode, stderr.toString() + stdout.toString()).toBe(0);
    return stdout.toString().trim();
  }
  /** What world.py answers to a word. */
  async function ask(vm: Vm, word: string): Promise<Record<string, unknown>> {
    const connection = await vm.dial({ network: "tcp", host: "127.0.0.1", port: 7000 });
    connection.write(`${word}\n`);
    let text = "";
    for await (const chunk of connection) text += String(chunk);
    connection.destroy();
    return JSON.parse(text) as Record<string, unknown>;
  }
  const expected = (far: string): Record<string, unknown> => ({
    ...ALL,
    ...(jdk ? { java: TIMER } : {}),
    far,
  });
  /** Redis as this host reaches it. */
  async function ping(socket: Socket): Promise<string> {
    const answer = new Promise<string>((resolve) => {
      socket.once("data", (chunk) => resolve(String(chunk).trim()));
      socket.once("close", () => resolve("ended"));
    });
    socket.write("PING\r\n");
    return await answer;
  }
  const dial = (): Socket => connect(ownPort, "127.0.0.1").on("error", () => undefined);
  const ticks = async (vm: Vm): Promise<number> =>
    Number(/tick (\d+)\s*$/.exec(await sh(vm, "tmux capture-pane -p -t t"))?.[1]);

  beforeAll(async () => {
    const recipe = { kind: "debian", packages: PACKAGES };
    const runtimes = { programs: { recipe, user: "root" } };
    const { dir, vmsan } = made;
    await writeFile(layoutOf(dir).runtimesFile, JSON.stringify({ schema: 1, runtimes }));
    await vmsanOk(["setup", "--runtime", "programs"], { dir, timeoutMs: LIMIT_MS });
    const programs = join(work.path, "programs");
    await mkdir(programs);
    for (const name of ["start.sh", "world.py", "server.cjs"]) {
      await cp(join(FILES, name), join(programs, name));
    }
    jdk = (await which("jlink")) !== undefined && (await which("javac")) !== undefined;
    if (jdk) {
      const modules = ["--add-modules", "java.base,jdk.httpserver", "--strip-debug"];
      const jre = await kept("jre", async (place) => {
        await tool("jlink", ...modules, "--output", join(place, "jre"));
      });
      await cp(join(jre, "jre"), join(programs, "jre"), { recursive: true });
      await tool("javac", "-d", programs, join(FILES, "Server.java"));
    } else process.stderr.write("programs: no JVM, since this host has no JDK\n");
    await vmsan.networks.create("net");
    const common = { networks: ["net"], user: "root" };
    const far = await vmsan.create({ ...common, name: "far", runtime: "base", memory: 128 });
    const echoing = far.spawn(["sh", "-c", ECHO], { detach: true });
    echoing.exit.catch(() => undefined);
    await echoing.started;
    const machine = { runtime: "programs", memory: 1024, ports: [`${ownPort}:6379`] };
    box = await vmsan.create({ ...common, ...machine, name: "box" });
    await box.upload([programs], "/opt", { user: "root" });
    await sh(box, "sh /opt/programs/start.sh far");
    await box.snapshot({ name: "s" });
  }, LIMIT_MS);

  test(
    "asleep and awake: nobody notices",
    async () => {
      expect(await ask(box, "check")).toEqual(expected("answers"));
      const caller = dial();
      expect(await ping(caller)).toBe("+PONG");
      const before = await ticks(box);
      await box.suspend();
      await sleep(5000);
      // What it says on a connection that was there wakes the VM.
      expect(await ping(caller)).toBe("+PONG");
      expect((await box.refresh()).status).toBe("running");
      expect(await ask(box, "check")).toEqual(expected("answers"));
      await expect.poll(() => ticks(box), { timeout: LIMIT_MS / 10 }).toBeGreaterThan(before);
      caller.destroy();
    },
    LIMIT_MS,
  );

  test(
    "forks go on with all of it but what leads to other machines; random generators of programs are alike",
    async () => {
      const caller = dial();
      expect(await ping(caller)).toBe("+PONG");
      const clones = await made.vmsan.fork("box", { count: 2, name: "c" });
      const drawn: Record<string, unknown>[] = [];
      for (const vm of clones) {
        expect(await ask(vm, "check")).toEqual(expected(RESET));
        drawn.push(await ask(vm, "draw"));
        expect(await ask(vm, "finish")).toEqual(DONE);
      }
      const [one = {}, two = {}] = drawn;
      const alike = Object.keys(one).filter((name) => one[name] === two[name]);
      expect(alike.toSorted()).toEqual(ALIKE.filter((name) => name in one).toSorted());
      // The source has noticed nothing.
      expect(await ping(caller)).toBe("+PONG");
      expect(await ask(box, "check")).toEqual(expected("answers"));
      caller.destroy();
      for (const vm of clones) await vm.remove();
    },
    LIMIT_MS,
  );

  test(
    "taken back: transactions are open again, and whoever was connected from outside is told",
    async () => {
      expect(await ask(box, "finish")).toEqual(DONE);
      const caller = dial();
      expect(await ping(caller)).toBe("+PONG");
      const ended = new Promise((resolve) => caller.once("close", resolve));
      await box.restore("s");
      await ended;
      expect(await ask(box, "check")).toEqual(expected(RESET));
      expect(await ask(box, "finish")).toEqual(DONE);
      const again = dial();
      expect(await ping(again)).toBe("+PONG");
      again.destroy();
      // Timers of the wall clock go on as well.
      await sh(box, "rm -f /root/cron.log");
      const ran = async (): Promise<string> => await sh(box, "cat /root/cron.log || true");
      await expect.poll(ran, { timeout: LIMIT_MS / 10, interval: 5000 }).not.toBe("");
    },
    LIMIT_MS,
  );
});
