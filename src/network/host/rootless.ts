/**
 * Networks without root: a user, network and mount namespace stands in for the host. A process
 * that does nothing keeps it, pasta connects it to the outside with sockets of this user. The
 * rules, links and services of the VMs are the same in there as on a host.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { ProcessIdentity } from "../../model/vm.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { worksIn } from "../../util/files/directory.ts";
import { identityOf, isAlive, signalProcess } from "../../util/process-identity.ts";
import { run } from "../../util/run.ts";
import { Realm, adminPath } from "./realm.ts";

/** Programs that only this mode needs, and the Debian packages that hold them. */
export const rootlessTools = { pasta: "passt", unshare: "util-linux" };

/**
 * What the keeper runs: nothing until it is told that its identity is on disk (else a daemon
 * killed in this moment would leave it behind), then a place for namespaces' names, then nothing.
 */
const keeperScript =
  "read -r go || exit 1; mount -t tmpfs -o mode=755 vmsan /run && ip link set lo up && echo ready && exec sleep infinity <&- >&- 2>&-";

/** Arguments of unshare(1) that make the keeper's namespaces. */
export const keeperSpaces = ["--user", "--map-root-user", "--net", "--mount"];

/** Milliseconds that the keeper and pasta have to be ready; pasta can hang without a tun device. */
const startMs = 15_000;

/** A stored identity; undefined when the file is missing or damaged. */
function readIdentity(path: string): ProcessIdentity | undefined {
  try {
    const { pid, startTime, bootId } = JSON.parse(readFileSync(path, "utf8")) as ProcessIdentity;
    const good =
      Number.isInteger(pid) &&
      pid > 0 &&
      typeof startTime === "number" &&
      typeof bootId === "string";
    return good ? { pid, startTime, bootId } : undefined;
  } catch {
    // ENOENT: none yet; SyntaxError: not one of ours. Either way a new one is made.
    return undefined;
  }
}

/** The stand-in for the host. One for each state directory; found again by the next daemon. */
export class RootlessRealm extends Realm {
  private readonly dir: string;
  private readonly warn: (message: string) => void;
  private keeper: ProcessIdentity | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private complaint = "";

  /** @param dir where its processes' identities are kept @param warn told when there is no way out */
  constructor(dir: string, warn: (message: string) => void) {
    super();
    this.dir = dir;
    this.warn = warn;
    const keeper = readIdentity(this.keeperFile);
    if (keeper !== undefined && this.isOwn(keeper)) this.keeper = keeper;
  }

  /** Whether a keeper is this directory's: not when the directory is a copy of another's. */
  private isOwn(keeper: ProcessIdentity): boolean {
    // Keepers of versions that did not stand in their directory are known by their pasta.
    return worksIn(keeper.pid, this.dir) || this.pastaServes(keeper.pid);
  }

  private get keeperFile(): string {
    return join(this.dir, "keeper.json");
  }

  private get pastaFile(): string {
    return join(this.dir, "pasta.pid");
  }

  override get isHost(): boolean {
    return false;
  }

  protected override get proc(): string | undefined {
    const { keeper } = this;
    return keeper !== undefined && isAlive(keeper) ? `/proc/${keeper.pid}` : undefined;
  }

  /** The keeper's /proc directory, which must be there. */
  private place(): string {
    const { proc } = this;
    if (proc !== undefined) return proc;
    throw new VmsanError({
      code: "ERR_NETWORK_LOST",
      message: "Cannot reach the networks of VMs",
      why: "The process that keeps their namespace has ended.",
      fix: "Stop and start the VMs: each start makes what is missing.",
    });
  }

  override get prefix(): readonly string[] {
    const place = this.place();
    return [
      "nsenter",
      `--user=${place}/ns/user`,
      "--preserve-credentials",
      `--net=${place}/ns/net`,
      `--mount=${place}/ns/mnt`,
      "--",
    ];
  }

  override reach(name: string): { netns: string; userns: string } {
    const place = this.place();
    return { netns: `${place}/root${this.netnsPath(name)}`, userns: `${place}/ns/user` };
  }

  override ready(): Promise<boolean> {
    return this.serial(async () => {
      const isNew = this.proc === undefined;
      if (isNew) await this.keep();
      await this.connect();
      return isNew;
    });
  }

  override release(): Promise<void> {
    return this.serial(async () => {
      const pasta = this.pasta();
      if (pasta !== undefined) signalProcess(pasta.identity, "SIGKILL");
      if (this.keeper !== undefined) signalProcess(this.keeper, "SIGKILL");
      this.keeper = undefined;
      rmSync(this.dir, { recursive: true, force: true });
      await Promise.resolve();
    });
  }

  /** One at a time. */
  private serial<T>(body: () => Promise<T>): Promise<T> {
    const result = this.turn.then(body);
    // A failure is its caller's; the next one starts all the same.
    this.turn = result.catch(() => undefined);
    return result;
  }

  /** Start the process that keeps the namespaces. */
  private async keep(): Promise<void> {
    mkdirSync(this.dir, { recursive: true, mode: 0o700 });
    const child = spawn("unshare", [...keeperSpaces, "--", "sh", "-c", keeperScript], {
      detached: true,
      stdio: ["pipe", "pipe", "pipe"],
      // What tells it from those of other installations.
      cwd: this.dir,
      env: { PATH: adminPath },
    });
    child.unref();
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said += text));
    // EPIPE: it has ended, which its output tells.
    child.stdin.on("error", () => undefined);
    const timer = setTimeout(() => child.kill("SIGKILL"), startMs);
    try {
      const isReady = new Promise<boolean>((resolve, reject) => {
        child.once("error", reject);
        child.stdout.once("data", () => resolve(true));
        child.once("close", () => resolve(false));
      });
      const identity = child.pid === undefined ? undefined : identityOf(child.pid);
      if (identity !== undefined) {
        await writeFileAtomic(this.keeperFile, `${JSON.stringify(identity)}\n`);
        child.stdin.end("go\n");
      }
      if ((await isReady) && identity !== undefined) {
        this.keeper = identity;
        return;
      }
      throw new Error(said.trim() || "It ended at once.");
    } catch (error) {
      child.kill("SIGKILL");
      throw new VmsanError(
        {
          code: "ERR_NETWORK_SETUP",
          message: "Cannot make the namespace for networks without root",
          why: messageOf(error),
          fix: "Run `vmsan doctor`: it tells what this user may not do.",
        },
        error,
      );
    } finally {
      clearTimeout(timer);
      for (const stream of [child.stdin, child.stdout, child.stderr]) stream.destroy();
    }
  }

  /** The running pasta of this place; known by its command line, which names its file. */
  private pasta(): { identity: ProcessIdentity; argv: string[] } | undefined {
    try {
      const identity = identityOf(Number(readFileSync(this.pastaFile, "utf8")));
      if (identity === undefined) return undefined;
      const argv = readFileSync(`/proc/${identity.pid}/cmdline`, "utf8").split("\0");
      return argv.includes(this.pastaFile) ? { identity, argv } : undefined;
    } catch (error) {
      // ENOENT, ESRCH: it was never started, or it has ended.
      if (errnoOf(error) === "ENOENT" || errnoOf(error) === "ESRCH") return undefined;
      throw error;
    }
  }

  /** Whether this place's pasta runs and connects that keeper. */
  private pastaServes(keeper: number): boolean {
    return this.pasta()?.argv.includes(String(keeper)) ?? false;
  }

  /**
   * Connect the place to the outside if it is not. Without a connection VMs come up all the
   * same, as on a host that has none; the next call tries again.
   */
  private async connect(): Promise<void> {
    const running = this.pasta();
    const keeper = this.keeper?.pid ?? 0;
    if (this.pastaServes(keeper)) return;
    // One that belongs to a keeper that is gone is of no use.
    if (running !== undefined) signalProcess(running.identity, "SIGKILL");
    rmSync(this.pastaFile, { force: true });
    this.launches += 1;
    // Root without rights over the network (in a container): pasta would become nobody, who may
    // not enter.
    const user = process.geteuid?.() === 0 ? ["--runas", "0"] : [];
    const closed = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"];
    // Nothing of the host behind the gateway's address, no ports either way.
    const flags = ["--config-net", "--no-map-gw", ...closed, ...user, "-q", "-P", this.pastaFile];
    const result = await run("pasta", [...flags, String(keeper)], {
      timeoutMs: startMs,
      env: { PATH: adminPath, LC_ALL: "C" },
    });
    const complaint =
      result.code === 0
        ? ""
        : `pasta failed with ${result.signal ?? `status ${result.code}`}: ${result.stderr.trim().slice(-500)}`;
    if (complaint !== "" && complaint !== this.complaint) {
      this.warn(`VMs have no way out: ${complaint}`);
    }
    this.complaint = complaint;
  }
}
