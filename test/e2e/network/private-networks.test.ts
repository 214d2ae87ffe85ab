/** Private networks of real guests, through command line, SDK and gateway. */
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { startGateway } from "../../../src/gateway/gateway.ts";
import { Keys } from "../../../src/gateway/access/keys.ts";
import { Vmsan } from "../../../src/client/vmsan.ts";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { whyNot } from "../../network/launch.ts";
import { busyboxLayer, umociImage } from "../images.ts";
import { errorCode, vmsanJson, vmsanOk } from "../support.ts";

const reason = whyNot();
if (reason !== undefined) {
  process.stderr.write(`skipped: test/e2e/network/private-networks.test.ts ${reason}\n`);
}

/** A name's addresses, as the guest's own resolver gives them; none when it does not. */
async function lookUp(vm: Vm, name: string): Promise<string[]> {
  const { stdout } = await vm.exec(["busybox", "nslookup", name]);
  // Behind the name server's own address.
  const [, answer = ""] = stdout.toString().split(/^Name:/m);
  return [...answer.matchAll(/Address[^:]*:\s*([\d.]+)/g)].map((match) => match[1] ?? "");
}

/** Whether an address answers. @param seconds how long it may take */
async function ping(vm: Vm, address: string, seconds: number): Promise<boolean> {
  const argv = ["busybox", "ping", "-c", "1", "-W", String(seconds), address];
  return (await vm.exec(argv)).exitCode === 0;
}
const PATIENT = 60;
const BRIEF = 2;

/** The card's IPv4 addresses. */
async function addresses(vm: Vm): Promise<string[]> {
  const { stdout } = await vm.exec(["busybox", "ip", "-4", "-o", "addr", "show", "eth0"]);
  return [...stdout.toString().matchAll(/inet ([\d.]+)/g)].map((match) => match[1] ?? "");
}

describe.skipIf(reason !== undefined)("private networks", () => {
  const made = installation("kernel");
  const work = temporary();
  let a: Vm;
  let b: Vm;
  let c: Vm;
  /** Namespaces of this installation's networks, as its VMs' leases name them. */
  const nets = (): string[] => {
    const { network } = layoutOf(made.dir);
    const files = readdirSync(network).filter((name) => name.endsWith(".json"));
    const text = files.map((name) => readFileSync(join(network, name), "utf8")).join("");
    return [...new Set(text.match(/vmsan-net-[0-9a-f]{8}/g))];
  };
  beforeAll(async () => {
    const image = await umociImage(join(work.path, "image"), [busyboxLayer]);
    const { dir, vmsan } = made;
    await vmsanOk(["network", "create", "app"], { dir });
    const common = { image, memory: 128, warm: false };
    [a, b, c] = await Promise.all([
      vmsan.create({ ...common, name: "a", networks: ["app"] }),
      vmsan.create({
        ...common,
        name: "b",
        networkPolicy: "deny-all",
        networks: [{ network: "app", aliases: ["db"], address: "198.18.0.77" }],
      }),
      vmsan.create({ ...common, name: "c" }),
    ]);
    await b.exec(["busybox", "sh", "-c", "echo of b >/page; busybox httpd -p 8080 -h /"]);
  });

  test("members find and reach each other, whatever their policies; others do not", async () => {
    const [own = ""] = a.view.networks.map(({ address }) => address);
    expect(await addresses(a)).toContain(own);
    expect(await addresses(b)).toContain("198.18.0.77");
    for (const name of ["b", "db", "b.app"]) expect(await lookUp(a, name)).toEqual(["198.18.0.77"]);
    expect(await lookUp(b, "a")).toEqual([own]);
    expect(await ping(a, "198.18.0.77", PATIENT)).toBe(true);
    expect(await ping(b, own, PATIENT)).toBe(true);
    const page = await a.exec(["busybox", "wget", "-q", "-O", "-", "http://198.18.0.77:8080/page"]);
    expect(page.stdout.toString()).toBe("of b\n");
    // Beyond the network b has nothing, and c nobody.
    expect(await lookUp(c, "b")).toEqual([]);
    expect(await ping(c, "198.18.0.77", BRIEF)).toBe(false);
    const plain = c.view.guestNetwork?.ipv4?.split("/")[0] ?? "";
    for (const vm of [a, b]) expect(await ping(vm, plain, BRIEF)).toBe(false);
    // The kernel tells of connections behind their back.
    const log = async (): Promise<string> =>
      await vmsanOk(["network", "a", "--log", "--json"], { dir: made.dir });
    await expect.poll(log, { timeout: 60_000 }).toMatch(/"198\.18\.0\.77"[^}]*"private-network"/);
  });

  test("in and out while it runs, in two networks", async () => {
    const { dir, vmsan } = made;
    await vmsan.networks.create("two", { subnet: "10.20.0.0/16" });
    await vmsan.networks.connect("two", "a");
    const text = await vmsanOk(["network", "connect", "two", "c", "--alias", "x"], { dir });
    const address = text.trim();
    expect(await lookUp(a, "x")).toEqual([address]);
    expect(await ping(a, address, PATIENT)).toBe(true);
    expect(await lookUp(b, "c")).toEqual([]);
    expect(await ping(b, address, BRIEF)).toBe(false);
    expect(await ping(c, "198.18.0.77", BRIEF)).toBe(false);
    expect(await errorCode(["network", "rm", "two"], { dir })).toBe("ERR_PRIVATE_NETWORK_IN_USE");
    await vmsanOk(["network", "disconnect", "two", "c"], { dir });
    expect(await addresses(c)).not.toContain(address);
    expect(await lookUp(a, "x")).toEqual([]);
    expect(await ping(a, address, BRIEF)).toBe(false);
    expect(await ping(a, "198.18.0.77", PATIENT)).toBe(true);
  });

  test("a fork is a member of its own, and the next daemon goes on", async () => {
    const { vmsan } = made;
    const [fork] = await vmsan.fork("a", { name: "f" });
    if (fork === undefined) throw new Error("no fork");
    const of = async (ref: string): Promise<string> => {
      const { view } = await vmsan.get(ref);
      return view.networks.find(({ network }) => network === "app")?.address ?? "";
    };
    const [own, copy] = [await of("a"), await of("f")];
    expect(copy).not.toBe(own);
    expect(await addresses(fork)).toContain(copy);
    expect(await addresses(fork)).not.toContain(own);
    const both = async (): Promise<void> => {
      for (const vm of [a, fork]) {
        expect(await lookUp(vm, "b")).toEqual(["198.18.0.77"]);
        expect(await ping(vm, "198.18.0.77", PATIENT)).toBe(true);
      }
      for (const address of [own, copy]) expect(await ping(b, address, PATIENT)).toBe(true);
    };
    await both();
    const info = await vmsanJson<{ pid: number }>(["daemon", "status"], { dir: made.dir });
    process.kill(info.pid, "SIGKILL");
    const gone = (): boolean => !existsSync(`/proc/${info.pid}/exe`);
    await expect.poll(gone, { timeout: 60_000 }).toBe(true);
    await both();
    expect(await lookUp(b, "f")).toEqual([copy]);
  });

  test("a key has the networks of its project, and no others", async () => {
    const { dir } = made;
    const gateway = await startGateway({ dir, listen: "127.0.0.1:0", driver: "fake" });
    try {
      const keys = new Keys(layoutOf(dir).gateway);
      const [ours, theirs] = await Promise.all(
        ["ours", "theirs"].map(async (project) => {
          const { text } = await keys.create({ project });
          return new Vmsan({ remote: { url: gateway.url, key: `vmsan_${text}` } });
        }),
      );
      if (ours === undefined || theirs === undefined) throw new Error("no keys");
      await ours.networks.create("net");
      expect((await ours.networks.list()).map(({ name, project }) => [name, project])).toEqual([
        ["net", "ours"],
      ]);
      expect(await theirs.networks.list()).toEqual([]);
      const code = "ERR_PRIVATE_NETWORK_NOT_FOUND";
      for (const name of ["net", "app"]) {
        await expect(theirs.networks.get(name)).rejects.toMatchObject({ code });
        await expect(theirs.networks.remove(name)).rejects.toMatchObject({ code });
        await expect(theirs.networks.connect(name, "a")).rejects.toMatchObject({ code });
        await expect(
          theirs.create({ image: "docker.io/library/none", networks: [name] }),
        ).rejects.toMatchObject({ code });
      }
      // A network of one's own, and somebody else's VM.
      const noVm = { code: "ERR_VM_NOT_FOUND" };
      await expect(ours.networks.connect("net", "a")).rejects.toMatchObject(noVm);
      await expect(ours.networks.prune()).rejects.toMatchObject({ code: "ERR_GATEWAY_FORBIDDEN" });
      await ours.networks.remove("net");
    } finally {
      await gateway.close();
    }
  });

  test("nothing is left of networks whose VMs have gone", async () => {
    const { dir } = made;
    const own = nets().map((name) => `/run/netns/${name}`);
    expect(own.length).toBe(2);
    expect(own.filter((path) => !existsSync(path))).toEqual([]);
    await vmsanOk(["rm", "-f", "a", "b", "c", "f"], { dir });
    expect(own.filter(existsSync)).toEqual([]);
    expect(nets()).toEqual([]);
    const report = await vmsanJson(["network", "prune"], { dir });
    expect(report).toEqual({ networks: ["app", "two"] });
  });
});
