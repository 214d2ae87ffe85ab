/** E2B's volumes by its published SDK, against a gateway whose guests are processes of this host. */
import {
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import {
  AuthenticationError,
  Sandbox,
  SandboxError,
  Volume,
  VolumeError,
  VolumeNotFoundError,
  VolumePathNotFoundError,
} from "e2b";
import { Vmsan } from "../../src/client/vmsan.ts";
import { fakeDaemon } from "../../src/daemon/testing.ts";
import type { FakeDaemon } from "../../src/daemon/testing.ts";
import { Keys } from "../../src/gateway/access/keys.ts";
import type { NewKey } from "../../src/gateway/access/keys.ts";
import { startGateway } from "../../src/gateway/gateway.ts";
import { createEmptyDisk } from "../../src/ext4/empty.ts";
import type { ListeningGateway } from "../../src/gateway/http/server.ts";
import { layoutOf } from "../../src/util/paths.ts";

let daemon: FakeDaemon;
let gateway: ListeningGateway;
let keys: Keys;
let vmsan: Vmsan;
let scratch: string;
/** What the volume is where the sandbox mounts it: a directory of this host, since its guest is one. */
let place: string;

interface Connection {
  apiKey: string;
  apiUrl: string;
  sandboxUrl: string;
}
let ours: Connection;

async function client(wish: NewKey): Promise<Connection> {
  const { text } = await keys.create(wish);
  return { apiKey: `e2b_${text}`, apiUrl: gateway.url, sandboxUrl: gateway.url };
}

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "vmsan-volumes-"));
  place = join(scratch, "volume");
  await mkdir(place);
  daemon = await fakeDaemon();
  // Where things are to be mounted is looked up in the image, which is empty.
  await createEmptyDisk(join(daemon.dir, "base.ext4"), { sizeBytes: 64 << 20, journal: false });
  keys = new Keys(layoutOf(daemon.dir).gateway);
  vmsan = new Vmsan({ dir: daemon.dir });
  gateway = await startGateway({ dir: daemon.dir, listen: "127.0.0.1:0", driver: "fake" });
  vi.stubEnv("E2B_VOLUME_API_URL", gateway.url);
  ours = await client({ project: "ours" });
});

afterAll(async () => {
  vi.unstubAllEnvs();
  await gateway?.close();
  await daemon?.close();
  await rm(scratch, { recursive: true, force: true });
});

/** A volume, and a sandbox of ours that has it at {@link place}. */
async function mounted(name: string): Promise<{ volume: Volume; sandbox: Sandbox }> {
  const volume = await Volume.create(name, ours);
  const sandbox = await Sandbox.create("base", { ...ours, volumeMounts: { [place]: volume } });
  return { volume, sandbox };
}

test("volumes are made, listed, found and removed, each project its own", async () => {
  const others = await client({ project: "others" });
  const admin = await client({ project: "others", admin: true });
  const volume = await Volume.create("data", ours);
  await expect(Volume.create("data", ours)).rejects.toThrow(/already exists/);
  // The same name in another project is another volume.
  const theirs = await Volume.create("data", others);
  expect(theirs.volumeId).not.toBe(volume.volumeId);
  expect(theirs.token).not.toBe(volume.token);
  expect(await Volume.list(ours)).toEqual([{ volumeId: volume.volumeId, name: "data" }]);
  expect(await Volume.list(admin)).toHaveLength(2);
  expect(await Volume.getInfo(volume.volumeId, ours)).toMatchObject({
    name: "data",
    token: volume.token,
  });
  await expect(Volume.getInfo(volume.volumeId, others)).rejects.toThrow(VolumeNotFoundError);
  await expect(Volume.connect(volume.volumeId, others)).rejects.toThrow(VolumeNotFoundError);
  expect(await Volume.destroy(volume.volumeId, others)).toBe(false);
  const nobody = { ...ours, apiKey: `e2b_${"0".repeat(48)}` };
  await expect(Volume.list(nobody)).rejects.toThrow(AuthenticationError);
  for (const name of ["", "a/b", "..", "x".repeat(101), "é"])
    await expect(Volume.create(name, ours)).rejects.toThrow();
  // One that the operator has labelled belongs to the project too.
  await vmsan.volumes.create("models", { labels: { "vmsan.project": "ours" } });
  await vmsan.volumes.create("hosts-own");
  expect((await Volume.list(ours)).map(({ name }) => name)).toEqual(["data", "models"]);
  expect(await Volume.destroy(volume.volumeId, ours)).toBe(true);
  expect(await Volume.destroy(volume.volumeId, ours)).toBe(false);
  // Made anew, it is another one: the old token opens nothing.
  const again = await Volume.create("data", ours);
  expect(again.token).not.toBe(volume.token);
  await expect(volume.list("/")).rejects.toThrow(AuthenticationError);
  for (const { volumeId } of await Volume.list(admin)) await Volume.destroy(volumeId, admin);
});

test("a key's limit of disk counts volumes", async () => {
  const small = await client({ project: "small", limits: { diskBytes: 15 * 2 ** 30 } });
  const first = await Volume.create("first", small);
  await expect(Volume.create("second", small)).rejects.toThrow(/may not have/);
  await expect(Sandbox.create("base", small)).rejects.toThrow(/may not have/);
  await Volume.destroy(first.volumeId, small);
  const second = await Volume.create("second", small);
  await Volume.destroy(second.volumeId, small);
});

test("what is in a volume is read and written while a sandbox has it", async () => {
  const { volume, sandbox } = await mounted("content");
  expect((await sandbox.getInfo()).volumeMounts).toEqual([{ name: "content", path: place }]);
  const text = "é\n".repeat(50_000);
  const written = await volume.writeFile("/a.txt", text);
  expect(written).toMatchObject({ name: "a.txt", path: "/a.txt", type: "file", mode: 0o666 });
  expect(await readFile(join(place, "a.txt"), "utf8")).toBe(text);
  expect(await volume.readFile("a.txt")).toBe(text);
  const bytes = await volume.readFile("/a.txt", { format: "bytes" });
  expect(Buffer.from(bytes).toString()).toBe(text);
  let streamed = 0;
  for await (const part of await volume.readFile("/a.txt", { format: "stream" }))
    streamed += part.length;
  expect(streamed).toBe(Buffer.byteLength(text));
  await writeFile(join(place, "empty"), "");
  expect(await volume.readFile("/empty")).toBe("");

  // What exists is replaced only by force, and directories are made only so.
  await expect(volume.writeFile("/a.txt", "x")).rejects.toThrow(VolumeError);
  await volume.writeFile("/a.txt", "short", { force: true, mode: 0o640 });
  expect(await volume.getInfo("/a.txt")).toMatchObject({ size: 5, mode: 0o640 });
  await expect(volume.writeFile("/deep/er/b", "x")).rejects.toThrow(VolumePathNotFoundError);
  await volume.writeFile("/deep/er/b", "x", { force: true });
  expect((await stat(join(place, "deep/er"))).mode & 0o7777).toBe(0o777);
  await expect(volume.makeDir("/deep")).rejects.toThrow(VolumeError);
  expect(await volume.makeDir("/deep", { force: true })).toMatchObject({ type: "directory" });
  expect(await volume.makeDir("/new", { mode: 0o700 })).toMatchObject({ mode: 0o700 });

  expect((await volume.list("/")).map(({ path }) => path)).toEqual([
    "/a.txt",
    "/deep",
    "/empty",
    "/new",
  ]);
  const below = await volume.list("/deep", { depth: 2 });
  expect(below.map(({ path, type }) => [path, type])).toEqual([
    ["/deep/er", "directory"],
    ["/deep/er/b", "file"],
  ]);
  await expect(volume.list("/a.txt")).rejects.toThrow(VolumeError);
  await expect(volume.list("/nowhere")).rejects.toThrow(VolumePathNotFoundError);
  expect(await volume.exists("/nowhere/x")).toBe(false);
  expect(await volume.updateMetadata("/a.txt", { mode: 0o600 })).toMatchObject({ mode: 0o600 });
  await utimes(join(place, "a.txt"), 1_000_000_000, 1_100_000_000);
  const { atime, mtime } = await volume.getInfo("/a.txt");
  expect([atime.getTime(), mtime.getTime()]).toEqual([1_000_000_000_000, 1_100_000_000_000]);
  await volume.remove("/deep");
  await expect(volume.remove("/deep")).rejects.toThrow(VolumePathNotFoundError);
  await expect(volume.remove("/")).rejects.toThrow(VolumeError);
  for (const { name } of await volume.list("/")) await volume.remove(name);
  expect(await readdir(place)).toEqual([]);

  // It is held: nobody else gets it, and it stays.
  await expect(
    Sandbox.create("base", { ...ours, volumeMounts: { "/mnt": "content" } }),
  ).rejects.toThrow(SandboxError);
  await expect(Volume.destroy(volume.volumeId, ours)).rejects.toThrow(VolumeError);
  await sandbox.kill();
  expect(await Volume.destroy(volume.volumeId, ours)).toBe(true);
});

test("no path leads out of a volume, by no link", async () => {
  const { volume, sandbox } = await mounted("closed");
  await writeFile(join(scratch, "secret"), "not yours");
  await symlink(join(scratch, "secret"), join(place, "out"));
  await symlink("../secret", join(place, "up"));
  await symlink("/sub/file", join(place, "absolute"));
  await symlink("again", join(place, "again"));
  await symlink("..", join(place, "parent"));
  await mkdir(join(place, "sub"));
  await writeFile(join(place, "sub/file"), "inside");
  for (const path of [
    "/../secret",
    "../../secret",
    "/out",
    "/up",
    "/parent/secret",
    "/sub/../../secret",
  ])
    await expect(volume.readFile(path), path).rejects.toThrow(VolumePathNotFoundError);
  // A link is to be followed as if the volume were the root of all.
  expect(await volume.readFile("/absolute")).toBe("inside");
  expect(await volume.readFile("/parent/sub/file")).toBe("inside");
  await expect(volume.readFile("/again")).rejects.toThrow(VolumeError);
  await expect(volume.readFile("/sub")).rejects.toThrow(VolumeError);
  await expect(volume.readFile("/sub/file/x")).rejects.toThrow(VolumeError);
  await volume.writeFile("/up", "x", { force: true });
  expect(await readFile(join(scratch, "secret"), "utf8")).toBe("not yours");
  expect(await readFile(join(place, "secret"), "utf8")).toBe("x");
  expect(await volume.getInfo("/out")).toMatchObject({ type: "symlink" });
  await volume.remove("/out");
  expect(await readFile(join(scratch, "secret"), "utf8")).toBe("not yours");
  for (const path of ["/a\0b", "x".repeat(5000)])
    await expect(volume.getInfo(path)).rejects.toThrow();
  await expect(volume.list("/", { depth: 11 })).rejects.toThrow(VolumeError);
  await expect(volume.writeFile("/m", "x", { mode: 0o10000 })).rejects.toThrow(VolumeError);
  await sandbox.kill();
  await Volume.destroy(volume.volumeId, ours);
  await rm(place, { recursive: true });
  await mkdir(place);
});

test("a volume's token opens that volume alone", async () => {
  const { volume, sandbox } = await mounted("token");
  const others = await client({ project: "others" });
  const theirs = await Volume.create("theirs", others);
  const ask = async (id: string, token: string): Promise<number> => {
    const url = `${gateway.url}/volumecontent/${id}/path?path=/`;
    const headers = { authorization: `Bearer ${token}` };
    return (await fetch(url, { headers })).status;
  };
  const { volumeId, token } = volume;
  expect(await ask(volumeId, token)).toBe(200);
  for (const [id, wrong] of [
    [volumeId, theirs.token],
    [volumeId, ours.apiKey],
    [volumeId, ""],
    [theirs.volumeId, token],
    ["nowhere", token],
  ] as const)
    expect([id, wrong, await ask(id, wrong)]).toEqual([id, wrong, 401]);
  // It is the key's that it was given to, and goes with it.
  const { key: lent, text } = await keys.create({ project: "ours" });
  const borrowed = { ...ours, apiKey: `e2b_${text}` };
  const again = await Volume.connect(volumeId, borrowed);
  const inside = await Sandbox.connect(sandbox.sandboxId, borrowed);
  const address = await inside.downloadUrl("/etc/hostname");
  expect(await ask(volumeId, again.token)).toBe(200);
  expect(await inside.files.exists("/etc/hostname")).toBe(true);
  expect((await fetch(address)).status).toBe(200);
  await keys.remove(lent.id);
  expect(await ask(volumeId, again.token)).toBe(401);
  await expect(inside.files.exists("/etc/hostname")).rejects.toThrow(AuthenticationError);
  expect((await fetch(address)).status).toBe(401);
  expect(await ask(volumeId, token)).toBe(200);
  expect(await sandbox.files.exists("/etc/hostname")).toBe(true);
  // Another project's sandbox gets none of ours.
  const asked = { ...others, volumeMounts: { "/mnt": "token" } };
  await expect(Sandbox.create("base", asked)).rejects.toThrow(/not found/);
  for (const path of ["relative", "/", "/proc/x", "/a/../b"])
    await expect(
      Sandbox.create("base", { ...ours, volumeMounts: { [path]: "token" } }),
    ).rejects.toThrow(SandboxError);
  await sandbox.kill();
  await Volume.destroy(volumeId, ours);
  await Volume.destroy(theirs.volumeId, others);
});

test("a volume that nobody has is served by a guest of its own, which makes room for sandboxes", async () => {
  const volume = await Volume.create("free", ours);
  // Processes of this host have no volume: that it is looked for at its place is what shows.
  await volume.exists("/");
  const [helper] = await vmsan.list();
  expect(helper).toMatchObject({ labels: { "vmsan.e2b.volume": volume.volumeId } });
  await volume.exists("/");
  expect((await vmsan.list()).map(({ id }) => id)).toEqual([helper?.id]);
  expect(await Sandbox.list(ours).nextItems()).toEqual([]);
  const sandbox = await Sandbox.create("base", { ...ours, volumeMounts: { [place]: volume } });
  expect((await vmsan.list()).map(({ id }) => id)).toEqual([sandbox.sandboxId]);
  // One whose disk alone is kept lets go of it, and gets it back.
  await sandbox.pause({ keepMemory: false });
  await volume.exists("/");
  expect(await vmsan.list()).toHaveLength(2);
  await Sandbox.connect(sandbox.sandboxId, ours);
  expect(await vmsan.list()).toHaveLength(1);
  expect(await volume.exists("/")).toBe(true);
  await sandbox.kill();
  await volume.exists("/");
  expect(await vmsan.list()).toHaveLength(1);
  expect(await Volume.destroy(volume.volumeId, ours)).toBe(true);
  expect(await vmsan.list()).toEqual([]);
});
