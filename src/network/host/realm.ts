/**
 * Where VMs' networks are made: the host's own network namespace with root's rights, or one
 * below it that stands in for the host without them (rootless.ts). Everything that touches the
 * kernel goes through here, as few process launches as it takes.
 */
import { accessSync, existsSync, readFileSync } from "node:fs";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import { missingProgram, run } from "../../util/run.ts";
import type { RunResult } from "../../util/run.ts";

/** Programs that are run, and the Debian packages that hold them. */
export const tools = { ip: "iproute2", tc: "iproute2", nft: "nftables", nsenter: "util-linux" };

/** Where they are when PATH leaves out the system administrator's directories. */
export const adminPath = adminPathOf(process.env["PATH"]);

/** The same for a PATH. An empty part of it would be the directory that this process happens to be in. */
export function adminPathOf(path = ""): string {
  const own = path.split(":").filter((dir) => dir !== "");
  return [...own, "/usr/sbin", "/sbin", "/usr/bin", "/bin"].join(":");
}

/** Whether a program is found. */
export function hasTool(name: string): boolean {
  return adminPath.split(":").some((dir) => existsSync(`${dir}/${name}`));
}

/** Most that a program may take, in milliseconds. */
const LIMIT_MS = 30_000;

/** A program to be run. */
interface Feed {
  argv: readonly string[];
  /** The same for who is in the namespace `netns` already. */
  inside?: readonly string[];
  netns?: string | undefined;
  input: string;
  signal?: AbortSignal | undefined;
  /** Whatever it ends with. */
  force?: boolean;
  /** It may be done a second time, where nobody knows of the first. */
  again?: boolean | undefined;
}

/** Links that are asked for at a time: what is kept of a program's output is bounded. */
const LINKS_AT_A_TIME = 1000;

/** argv of an `ip` that reads what to do. */
function ipBatch(where: readonly string[], force: boolean): string[] {
  return ["ip", ...where, ...(force ? ["-force"] : []), "-batch", "-"];
}

/**
 * Runs programs for this process.
 * @param netns path of the network namespace to run it in
 * @throws ERR_NETWORK_HELPER when it is gone and has not begun, ERR_NETWORK_HELPER_LOST when it may have
 */
export type Launcher = (
  netns: string | undefined,
  argv: readonly string[],
  input: string,
  timeoutMs: number,
) => Promise<RunResult>;

/** The host's own network namespace, with root's rights: a place to make VMs' networks in. */
export class Realm {
  /** Programs launched so far; measured by the benchmark. */
  launches = 0;
  /** Who runs them instead of this process. */
  launcher: Launcher | undefined;

  /** argv to put before a program so that it runs there; empty: it is where this process is. */
  get prefix(): readonly string[] {
    return [];
  }

  /** Whether this is the host's own namespace, whose other users must not be disturbed. */
  get isHost(): boolean {
    return true;
  }

  /** /proc directory of a process that is there; undefined when there is none. */
  protected get proc(): string | undefined {
    return "/proc/self";
  }

  /**
   * Make the place ready for use.
   * @returns whether it is a new one, which holds nothing of what an earlier one held
   */
  async ready(): Promise<boolean> {
    return await Promise.resolve(false);
  }

  /** Take away what {@link ready} made; no VM may have a network here any more. */
  async release(): Promise<void> {
    await Promise.resolve();
  }

  /** Path of a named network namespace, for programs that run in the realm. */
  netnsPath(name: string): string {
    return `/run/netns/${name}`;
  }

  /** Where a VMM, started by this process, finds a VM's namespace. */
  reach(name: string): { netns: string; userns?: string } {
    return { netns: this.netnsPath(name) };
  }

  /** argv to put before a program so that it runs in a VM's namespace. */
  enter(name: string): string[] {
    return [...this.prefix, "nsenter", `--net=${this.netnsPath(name)}`, "--"];
  }

  /** Whether a named network namespace exists. */
  hasNetns(name: string): boolean {
    const { proc } = this;
    return proc !== undefined && existsSync(`${proc}/root${this.netnsPath(name)}`);
  }

  /** Names of all links. */
  links(): Set<string> {
    const { proc } = this;
    if (proc === undefined) return new Set();
    const text = readFileSync(`${proc}/net/dev`, "utf8");
    return new Set([...text.matchAll(/^\s*([^\s:]+):/gm)].map((match) => match[1] ?? ""));
  }

  /** Whether a link of that name exists. */
  hasLink(name: string): boolean {
    if (!this.isHost) return this.links().has(name);
    // Its settings are there for as long as it is: the list of all takes longer, the more there are.
    return existsSync(`/proc/sys/net/ipv4/conf/${name}`);
  }

  /** Hardware addresses of those of these links that there are, by their names. One launch for a thousand. */
  async hardwareAddresses(names: readonly string[]): Promise<Map<string, string>> {
    const addresses = new Map<string, string>();
    for (let at = 0; at < names.length; at += LINKS_AT_A_TIME) {
      const some = names.slice(at, at + LINKS_AT_A_TIME);
      const input = some.map((name) => `link show dev ${name}\n`).join("");
      const argv = ["ip", "-brief", "-force", "-batch", "-"];
      const text = await this.feed({ argv, input, force: true, again: true });
      // `vmsan1@if2 UP 02:… <BROADCAST,…>`: a veth's name is followed by its other end's.
      for (const [, name = "", address = ""] of text.matchAll(/^([^\s@]+)\S*\s+\S+\s+(\S+)/gm))
        addresses.set(name, address);
    }
    return addresses;
  }

  /**
   * Run a program with text as its input.
   * @returns its output. Throws ERR_NETWORK_SETUP with what it said.
   */
  private async feed(feed: Feed): Promise<string> {
    const { argv, inside = argv, netns, input, signal, force, again = force } = feed;
    this.launches += 1;
    const result =
      (await this.launched({ argv: inside, netns, input, again }, signal)) ??
      (await this.runHere(argv, input, signal));
    if (force === true || result.code === 0) return result.stdout;
    const late =
      result.signal === null ? "" : `It was killed, as what takes ${LIMIT_MS / 1000} s is. `;
    throw new VmsanError({
      code: "ERR_NETWORK_SETUP",
      message: `Cannot set up the network: ${argv.join(" ")} failed with ${result.signal ?? `status ${result.code}`}`,
      why: late + result.stderr.trim().slice(-2000),
      fix: "Run `vmsan doctor`: it tells which program or kernel feature is missing.",
    });
  }

  /** The same by the launcher; undefined when there is none, or it is gone and nothing is done twice by that. */
  private async launched(
    { argv, netns, input, again }: Pick<Feed, "argv" | "netns" | "input" | "again">,
    signal: AbortSignal | undefined,
  ): Promise<RunResult | undefined> {
    if (this.launcher === undefined) return undefined;
    signal?.throwIfAborted();
    const path = netns === undefined ? undefined : this.netnsPath(netns);
    try {
      const result = await this.launcher(path, argv, input, LIMIT_MS);
      // To the end in any case: what undoes it is not to meet it half way.
      signal?.throwIfAborted();
      return result;
    } catch (error) {
      if (signal?.aborted === true) throw signal.reason;
      const { code = "" } = error instanceof VmsanError ? error : {};
      if (code === "ERR_NETWORK_HELPER") return undefined;
      if (code === "ERR_NETWORK_HELPER_LOST") {
        if (again === true) return undefined;
        throw error;
      }
      // As a program says it that is to enter the namespace itself.
      if (netns !== undefined && !this.hasNetns(netns))
        return { code: 1, signal: null, stdout: "", stderr: messageOf(error) };
      throw missingProgram(argv[0] ?? "", error);
    }
  }

  private async runHere(
    argv: readonly string[],
    input: string,
    signal: AbortSignal | undefined,
  ): Promise<RunResult> {
    const [file = "", ...args] = [...this.prefix, ...argv];
    return await run(file, args, {
      input,
      env: { ...process.env, PATH: adminPath, LC_ALL: "C" },
      timeoutMs: LIMIT_MS,
      ...(signal === undefined ? {} : { signal }),
    });
  }

  /** Run an `ip` batch. @param force go on after errors and ignore them */
  async ip(input: string, signal?: AbortSignal, force = false): Promise<void> {
    await this.feed({ argv: ipBatch([], force), input, signal, force });
  }

  /** Run an `ip` batch in a VM's namespace. @param force go on after errors and ignore them */
  async ipIn(netns: string, input: string, signal?: AbortSignal, force = false): Promise<void> {
    const argv = ipBatch(["-n", netns], force);
    // With -n it makes a copy of all mounts for itself, of which each VM's namespace is one.
    await this.feed({ argv, inside: ipBatch([], force), netns, input, signal, force });
  }

  /** Run a `tc` batch in a VM's namespace. @param force go on after errors and ignore them */
  async tcIn(netns: string, input: string, signal?: AbortSignal, force = false): Promise<void> {
    const how = [...(force ? ["-force"] : []), "-batch", "-"];
    const [inside, argv] = [
      ["tc", ...how],
      ["tc", "-n", netns, ...how],
    ];
    await this.feed({ argv, inside, netns, input, signal, force });
  }

  /** Apply one nftables transaction in the realm's own namespace; twice must be as once. */
  async nft(input: string, signal?: AbortSignal): Promise<void> {
    await this.feed({ argv: ["nft", "-f", "-"], input, signal, again: true });
  }

  /** Apply one nftables transaction in a VM's namespace; twice must be as once. */
  async nftIn(netns: string, input: string, signal?: AbortSignal): Promise<void> {
    const inside = ["nft", "-f", "-"];
    const argv = ["nsenter", `--net=${this.netnsPath(netns)}`, "--", ...inside];
    await this.feed({ argv, inside, netns, input, signal, again: true });
  }

  /** Whether the realm has a way out for IPv6 (a default route that is not a rejection). */
  hasIpv6Route(): boolean {
    let text: string;
    try {
      text = readFileSync(`${this.proc ?? "/proc/self"}/net/ipv6_route`, "utf8");
    } catch (error) {
      // ENOENT: a kernel without IPv6.
      if (errnoOf(error) === "ENOENT") return false;
      throw error;
    }
    return text
      .split("\n")
      .some((line) => /^0{32} 00 /.test(line) && !/\slo$/.test(line.trimEnd()));
  }
}

/** Whether a file can be opened for reading and writing. */
export function canOpen(path: string): boolean {
  try {
    accessSync(path, 6);
    return true;
  } catch {
    // ENOENT, EACCES: that is the answer.
    return false;
  }
}
