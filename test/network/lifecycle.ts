/**
 * Networks made and removed in numbers, and daemons killed in the middle; in namespaces of its
 * own. With `child` in its job it is the daemon that gets killed. Prints JSON lines.
 */
import { execFileSync, spawn } from "node:child_process";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { createNetworkManager } from "../../src/network/network.ts";
import { parsePolicy } from "../../src/network/policy/parse.ts";
import type { Wanted } from "../../src/network/private/nets.ts";
import { Realm } from "../../src/network/host/realm.ts";
import { identityOf } from "../../src/util/process-identity.ts";
import { RootlessRealm } from "../../src/network/host/rootless.ts";

interface Job {
  helper: string;
  dir: string;
  child?: boolean;
  /** In a user namespace; only the kills. */
  rootless?: boolean;
  rounds: number;
  kills: number;
}

const job = JSON.parse(process.argv[2] ?? "{}") as Job;
const signal = new AbortController().signal;
const print = (line: unknown): void => {
  process.stdout.write(`${JSON.stringify(line)}\n`);
};
const manager = (): ReturnType<typeof createNetworkManager> =>
  createNetworkManager(
    { dir: job.dir, helper: job.helper, ipv6: true },
    job.rootless === true
      ? new RootlessRealm(join(job.dir, "rootless"), (problem) => print({ problem }))
      : new Realm(),
  );
const policy = parsePolicy({ mode: "custom", allowedDomains: "a.test", bandwidth: "50m" });

/** Settings of the host that forwarding changes. */
const settings =
  "^net[.]ipv[46][.](ip_forward$|conf[.].*[.](forwarding|accept_ra|accept_redirects)$)";

/** Command lines of the processes that keep a rootless realm. */
function keepers(): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        return /^(sleep|pasta|passt|unshare|sh) /.test(line) ? [line] : [];
      } catch {
        // ENOENT, ESRCH: it has ended.
        return [];
      }
    });
}

/** What VMs' networks could leave behind in the kernel and on disk. */
function traces(): Record<string, unknown> {
  const ip = (...args: string[]): string => execFileSync("ip", args, { encoding: "utf8" });
  return {
    links: ip("-o", "link")
      .split("\n")
      .filter((line) => line.includes("vmsan")),
    routes: (ip("route") + ip("-6", "route")).split("\n").filter((line) => line.includes("vmsan")),
    neighbours: (ip("neigh") + ip("-6", "neigh"))
      .split("\n")
      .filter((line) => line.includes("vmsan")),
    namespaces: existsSync("/run/netns") ? readdirSync("/run/netns") : [],
    rules: execFileSync("nft", ["list", "tables"], { encoding: "utf8" }).trim(),
    settings: execFileSync("sysctl", ["-a", "--pattern", settings], { encoding: "utf8" }),
    state: existsSync("/run") ? readdirSync("/run").filter((name) => name.startsWith("vmsan")) : [],
    keepers: keepers(),
    leases: existsSync(job.dir) ? readdirSync(job.dir) : [],
  };
}

/** The networks that a VM of a round is in: always one, every other round two. */
function placesOf(round: number, n: number): Wanted[] {
  const app = { network: "app", subnet: "198.18.0.0/24", address: `198.18.0.${2 + n}` };
  const two = { network: "two", subnet: "10.20.0.0/16", address: `10.20.0.${2 + n}` };
  return round % 2 === 0 ? [app] : [app, two];
}

/** Make and remove networks for ever, in random order; killed from outside. */
async function churn(): Promise<void> {
  const networks = manager();
  print({ event: "ready" });
  for (let round = 0; ; round += 1) {
    const ids = [0, 1, 2].map((n) => `vm-churn${round % 5}-${n}`);
    await Promise.all(
      ids.map((id, n) => networks.attach(id, policy, [], signal, placesOf(round, n))),
    );
    await networks.update(ids[0] ?? "", parsePolicy({ mode: "deny-all" }));
    await Promise.all(ids.map((id, n) => networks.place(id, placesOf(round + 1, n))));
    if (round % 3 === 0) await networks.place(ids[1] ?? "", []);
    await Promise.all(ids.slice(round % 2).map((id) => networks.detach(id)));
  }
}

/** The keeper's and pasta's deaths: the next start has both again. */
async function loss(): Promise<void> {
  const networks = manager();
  await networks.attach("vm-first", policy, [], signal);
  const dir = join(job.dir, "rootless");
  const pasta = (): number => Number(readFileSync(join(dir, "pasta.pid"), "utf8"));
  const keeper = (): number =>
    (JSON.parse(readFileSync(join(dir, "keeper.json"), "utf8")) as { pid: number }).pid;
  const kill = async (pid: number): Promise<void> => {
    process.kill(pid, "SIGKILL");
    while (identityOf(pid) !== undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  };
  const before = [pasta(), keeper()];
  await kill(pasta());
  await networks.attach("vm-second", policy, [], signal);
  const between = [pasta(), keeper()];
  await kill(keeper());
  await networks.attach("vm-third", policy, [], signal);
  const after = [pasta(), keeper()];
  print({ event: "loss", before, between, after, running: keepers().length });
  const { failed } = await networks.sweep(new Set());
  await networks.close();
  if (failed.length > 0) print({ problem: failed });
}

/** Networks in numbers, one in use, and starts that fail or are no longer wanted. */
async function life(): Promise<void> {
  // 300 networks, up to four at a time alive.
  const networks = manager();
  const alive: string[] = [];
  const addresses = new Set<string>();
  const descriptors = (): number => readdirSync("/proc/self/fd").length;
  let before = 0;
  for (let round = 0; round < job.rounds; round += 1) {
    const id = `vm-${String(round).padStart(8, "0")}`;
    const made = await networks.attach(id, policy, [], signal);
    const address = made?.guest.ipv4 ?? "";
    const used = alive.map((other) => readFileSync(`${job.dir}/${other}.json`, "utf8"));
    if (addresses.has(address)) print({ problem: `address ${address} given twice`, used });
    addresses.add(address);
    alive.push(id);
    if (alive.length > 4) {
      const report = await networks.detach(alive.shift() ?? "");
      if (report.failed.length > 0) print({ problem: "left", report });
    }
    if (round === 20) before = descriptors();
  }
  const after = descriptors();
  await Promise.all(alive.map((id) => networks.detach(id)));
  print({ stage: "rounds", addresses: addresses.size, descriptors: after - before, ...traces() });

  // Removed while a process still lives in the namespace and holds the tap.
  const used = await networks.attach("vm-used", policy, [], signal);
  const holder = spawn(used?.attachment.enter[0] ?? "", [
    ...(used?.attachment.enter.slice(1) ?? []),
    "sleep",
    "60",
  ]);
  await new Promise((resolve) => holder.once("spawn", resolve));
  const report = await networks.detach("vm-used");
  holder.kill("SIGKILL");
  print({ stage: "in use", failed: report.failed, ...traces() });

  // A failed and an aborted start.
  const taken = {
    protocol: "tcp",
    hostAddress: "127.0.0.1",
    hostPort: 7777,
    guestPort: 80,
  } as const;
  await networks.attach("vm-first", policy, [taken], signal);
  let code = "";
  try {
    await networks.attach("vm-second", policy, [taken], signal);
  } catch (error) {
    code = (error as { code?: string }).code ?? "";
  }
  const aborted = new AbortController();
  const start = networks.attach("vm-aborted", policy, [], aborted.signal);
  setTimeout(() => aborted.abort(new Error("no longer wanted")), 12);
  const ended = await start.then(
    () => "made",
    (error: Error) => error.message,
  );
  await networks.detach("vm-first");
  print({ stage: "failures", code, ended, ...traces() });
  await networks.close();
}

/** The host, seen as it was before another installation took its first slot. */
class LateRealm extends Realm {
  private late = true;

  override links(): Set<string> {
    if (!this.late) return super.links();
    this.late = false;
    return new Set();
  }
}

/** Two installations that take the same slot: each has its own link in the end. */
async function rivals(): Promise<void> {
  const first = manager();
  await first.attach("vm-first", policy, [], signal);
  const second = createNetworkManager(
    { dir: `${job.dir}-second`, helper: job.helper, ipv6: true },
    new LateRealm(),
  );
  await second.attach("vm-second", policy, [], signal);
  const { links } = traces();
  const up = [first.isUp("vm-first"), second.isUp("vm-second")];
  await second.detach("vm-second");
  const { failed } = await first.detach("vm-first");
  await second.close();
  await first.close();
  print({ event: "rivals", links: (links as string[]).length, up, failed });
}

if (job.child === true) {
  await churn();
} else {
  execFileSync("mount", ["-t", "tmpfs", "tmpfs", "/run"]);
  execFileSync("ip", ["link", "set", "lo", "up"]);
  // A host with choices of its own, which must be found again.
  execFileSync("ip", ["link", "add", "lan0", "type", "veth", "peer", "name", "lan1"]);
  execFileSync("sysctl", ["-qw", "net.ipv4.ip_forward=0"]);
  const choices = ["net.ipv4.conf.all.accept_redirects=0", "net.ipv4.conf.lan0.forwarding=1"];
  execFileSync("sysctl", ["-qw", ...choices]);
  print({ stage: "before", ...traces() });

  if (job.rootless === true) {
    const wan =
      "address add 198.51.100.2/24 dev lan0\nlink set dev lan1 up\nlink set dev lan0 up\nroute add default via 198.51.100.1\n";
    execFileSync("ip", ["-batch", "-"], { input: wan });
    await loss();
  } else {
    await life();
    await rivals();
  }

  // Killed at random moments; the next start finds everything.
  for (let kill = 0; kill < job.kills; kill += 1) {
    const child = spawn(
      process.execPath,
      [import.meta.filename, JSON.stringify({ ...job, child: true })],
      {
        stdio: ["ignore", "pipe", "inherit"],
      },
    );
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await new Promise((resolve) => setTimeout(resolve, 80 + Math.random() * 350));
    child.kill("SIGKILL");
    await new Promise((resolve) => child.once("exit", resolve));
    // Programs it had launched end by themselves; the next start comes later than that.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const next = manager();
    const swept = await next.sweep(new Set());
    await next.close();
    print({ stage: "kill", removed: swept.removed.length, failed: swept.failed, ...traces() });
  }
  print({ done: true });
  process.exit(0);
}
