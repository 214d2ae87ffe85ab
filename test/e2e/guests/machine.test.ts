/**
 * In a real guest whose image is one program: modules on demand, nodes, cards, filters, volumes. What
 * one kernel has as a module another has built in: what is to be loaded is asked of the guest's own.
 */
import { copyFile, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildGo } from "../../firecracker/support.ts";
import { umociImage } from "../images.ts";
import { freshDir, removeDir, root, vmsan, vmsanOk } from "../support.ts";

let dir = "";
let work = "";
beforeAll(async () => {
  dir = await freshDir();
  work = await mkdtemp(join(tmpdir(), "vmsan-machine-"));
  const probe = join(work, "probe");
  buildGo(work, join(root, "test/machine/probe.go"), probe);
  const image = await umociImage(
    join(work, "image"),
    [async (rootfs) => await copyFile(probe, join(rootfs, "probe"))],
    { entrypoint: ["/probe"] },
  );
  await vmsanOk(["create", "--name", "machine", "--memory", "256", "--from-image", image], { dir });
});
afterAll(async () => {
  await removeDir(dir);
  await rm(work, { recursive: true });
});

/** What the probe says of each thing that it is to try, as root. */
async function probe(...words: string[]): Promise<string[]> {
  const outcome = await vmsan(["exec", "machine", "/probe", ...words], { dir });
  return [
    ...outcome.stdout.toString().trim().split("\n"),
    ...(outcome.stderr ? [outcome.stderr] : []),
  ];
}

test("nothing is loaded that nobody asked for; what is asked for is, with what it needs", async () => {
  const release = (await probe("cat:/proc/sys/kernel/osrelease"))[0]?.split("=")[1];
  const builtin = (await probe(`cat:/lib/modules/${release}/modules.builtin`)).join("\n");
  const modules = (...names: string[]): string[] =>
    names.filter((name) => !builtin.includes(`/${name}.ko`));
  const said = (await probe("loaded"))[0] ?? "";
  expect(said.split(/[ =]/)).toEqual(expect.arrayContaining(modules("virtio_blk")));
  expect(said).not.toMatch(/tun|fuse|bridge|nf_|nft|wireguard|veth/);
  const modes = ["mode:/dev/fuse", "mode:/dev/net/tun", "mode:/dev/kmsg"];
  expect(await probe(...modes)).toEqual([
    "mode:/dev/fuse=20666 0:0",
    "mode:/dev/net/tun=20666 0:0",
    "mode:/dev/kmsg=20644 0:0",
  ]);
  const things = ["tun", "fuse", "link:bridge", "link:veth", "link:wireguard", "nat", "tmpfs"];
  expect(await probe(...things)).toEqual(things.map((thing) => `${thing}=ok`));
  const loaded = (await probe("loaded"))[0] ?? "";
  const always = ["bridge", "veth", "wireguard", "nft_masq", "nft_chain_nat"];
  const wanted = [...modules("tun", "fuse"), ...always];
  expect(loaded.split(/[ =]/)).toEqual(expect.arrayContaining(wanted));
  // A node that was there keeps its mode when its driver comes.
  expect(await probe("mode:/dev/fuse", "link:nothing")).toEqual([
    "mode:/dev/fuse=20666 0:0",
    "link:nothing=operation not supported",
  ]);
});
