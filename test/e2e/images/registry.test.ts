/**
 * Images that skopeo and buildah push to Debian's docker-registry, with TLS by a private
 * authority and a password: what vmsan makes of them equals `skopeo copy` + `umoci unpack`,
 * and runs.
 */
import { chmod, chown, copyFile, link, mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { stat, symlink, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startRegistry } from "../../registry/docker-registry.ts";
import type { TestRegistry } from "../../registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../../registry/fixture.ts";
import { treeOfDirectory, treeOfDisk } from "../../registry/trees.ts";
import { busyboxLayer, put, tool, umociImage } from "../images.ts";
import type { LayerStep } from "../images.ts";
import { errorCode, freshDir, removeDir, vmsanJson, vmsanOk } from "../support.ts";

/** The large layer has 50 MB; with VMSAN_TEST_SCALE=10, 500 MB. */
const LARGE = 50_000_000 * Number(process.env["VMSAN_TEST_SCALE"] ?? "1");
const USER = { name: "somebody", password: "not shown: ' $ % \" ü" };
const TOOL_CREDENTIALS = `${USER.name}:${USER.password}`;

let dir = "";
let work = "";
let secure: TestRegistry;
let plain: TestRegistry;
const registries: TestRegistry[] = [];
/** What the caller has in its environment, and the daemon has not. */
let env: Record<string, string> = {};

/** Names in the registry with TLS. */
const named = (name: string): string => `${secure.host}/test/${name}:1`;

/** Push an OCI layout with skopeo. */
async function push(source: string, name: string): Promise<void> {
  const flags = ["--dest-cert-dir", join(work, "certs"), "--dest-creds", TOOL_CREDENTIALS];
  await tool("skopeo", "copy", "-q", "--all", ...flags, source, `docker://${named(name)}`);
}

/** Everything that tar can hold and file systems find hard. */
const specials: LayerStep = async (rootfs) => {
  await put(join(rootfs, "a/gone"), "gone");
  await put(join(rootfs, "a/kept"), "kept");
  await link(join(rootfs, "a/kept"), join(rootfs, "hard"));
  await link(join(rootfs, "a/kept"), join(rootfs, "a/harder"));
  await chown(join(rootfs, "a/kept"), 1234, 70_000);
  await chmod(join(rootfs, "a/kept"), 0o6751);
  await put(join(rootfs, "opaque/below"), "below");
  await put(join(rootfs, "capable"), "program", 0o755);
  await tool("setcap", "cap_net_raw+ep", join(rootfs, "capable"));
  await put(join(rootfs, "marked"), "");
  await tool("setfattr", "-n", "user.text", "-v", "some words", join(rootfs, "marked"));
  await tool("setfattr", "-n", "user.bytes", "-v", "0x00ff10", join(rootfs, "marked"));
  await symlink("../a/kept", join(rootfs, "a/link"));
  await symlink(`/${"long/".repeat(40)}end`, join(rootfs, "far"));
  await tool("mknod", join(rootfs, "null"), "c", "1", "3");
  await tool("mknod", join(rootfs, "block"), "b", "259", "70000");
  await tool("mkfifo", join(rootfs, "fifo"));
  await mkdir(join(rootfs, "sticky"));
  await chmod(join(rootfs, "sticky"), 0o1777);
  await put(join(rootfs, "old"), "old");
  await utimes(join(rootfs, "old"), 86_400, 86_401);
  await put(join(rootfs, "späte Datei\\n"), "name");
};

/** A layer as a tar file that GNU tar made. */
async function tarLayer(step: LayerStep): Promise<Buffer> {
  const tree = await mkdtemp(join(work, "tree-"));
  await step(tree);
  const file = `${tree}.tar`;
  await tool("tar", "-C", tree, "--format=posix", "--sort=name", "-cf", file, ".");
  return await readFile(file);
}

/** 30 layers, zstd, one of them empty; later ones hide and replace what earlier ones have. */
async function pushThirty(): Promise<void> {
  const layers = [await tarLayer(busyboxLayer)];
  for (let index = 1; index < 29; index += 1) {
    layers.push(
      await tarLayer(async (tree) => {
        await put(join(tree, "shared"), `layer ${index}`);
        await put(join(tree, `own/${index}`), "x".repeat(index * 100));
        if (index > 1 && index % 5 === 0) await put(join(tree, `own/.wh.${index - 1}`), "");
      }),
    );
  }
  layers.push(Buffer.alloc(1024));
  const image = makeImage({ layers, compression: "zstd", config: { Cmd: ["/bin/ls", "/own"] } });
  const layout = join(work, "thirty");
  writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
  await push(`oci:${layout}:x`, "thirty");
}

/** One layer that does not compress. */
async function pushLarge(): Promise<void> {
  const image = makeImage({ layers: [tarOf("large", noise(LARGE, 7))] });
  const layout = join(work, "large");
  writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
  await push(`oci:${layout}:x`, "large");
}

/** An index of two platforms, made and pushed by buildah. */
async function pushMulti(): Promise<void> {
  const storage = ["--root", join(work, "storage"), "--runroot", join(work, "storage-run")];
  const buildah = (...args: string[]): Promise<string> =>
    tool("buildah", ...storage, "--storage-driver", "vfs", ...args);
  await buildah("manifest", "create", "both");
  const tree = join(work, "multi");
  await mkdir(tree);
  await busyboxLayer(tree);
  for (const arch of ["arm64", "amd64"]) {
    await put(join(tree, "etc/arch"), arch);
    const container = (await buildah("from", "--arch", arch, "scratch")).trim();
    await buildah("copy", "-q", container, tree, "/");
    await buildah("config", "--arch", arch, "--os", "linux", "--env", `ARCH=${arch}`, container);
    await buildah("commit", "-q", "--manifest", "both", container, `${arch}-image`);
  }
  const flags = ["--creds", TOOL_CREDENTIALS, "--cert-dir", join(work, "certs")];
  await buildah("manifest", "push", "-q", "--all", ...flags, "both", `docker://${named("multi")}`);
}

beforeAll(async () => {
  dir = await freshDir(["kernels", "initramfs", "probes"]);
  work = await mkdtemp(join(tmpdir(), "vmsan-registry-e2e-"));
  // The daemon runs already, without what only the caller knows.
  await vmsanOk(["list"], { dir });
  registries.push((secure = await startRegistry({ tls: true, user: USER })));
  registries.push((plain = await startRegistry()));
  await mkdir(join(work, "certs"));
  await copyFile(secure.caFile ?? "", join(work, "certs/ca.crt"));
  env = { DOCKER_CONFIG: join(work, "docker") };
  const layered = await umociImage(join(work, "specials"), [
    busyboxLayer,
    specials,
    async (rootfs) => {
      await rm(join(rootfs, "a/gone"));
      await rm(join(rootfs, "opaque"), { recursive: true });
      await put(join(rootfs, "opaque/new"), "new");
    },
  ]);
  await push(layered, "specials");
  await pushThirty();
  await pushLarge();
  await pushMulti();
  await tool(
    "skopeo",
    "copy",
    "-q",
    "--dest-tls-verify=false",
    layered,
    `docker://${plain.host}/test/plain:1`,
  );
});

afterAll(async () => {
  await removeDir(dir);
  await Promise.all(registries.map(async (registry) => registry.stop()));
  await rm(work, { recursive: true, force: true });
});

describe("a registry with a password and a private authority", () => {
  test("says what is missing", async () => {
    const image = named("specials");
    expect(await errorCode(["image", "pull", image], { dir, env })).toBe("ERR_IMAGE_TLS");
    const flags = ["--ca-file", secure.caFile ?? ""];
    expect(await errorCode(["image", "pull", ...flags, image], { dir, env })).toBe(
      "ERR_IMAGE_UNAUTHORIZED",
    );
  });

  test("login checks the password and keeps it where skopeo finds it", async () => {
    const flags = ["--ca-file", secure.caFile ?? "", "-u", USER.name, "--password-stdin"];
    const wrong = { dir, env, input: "wrong\n" };
    expect(await errorCode(["login", secure.host, ...flags], wrong)).toBe("ERR_IMAGE_UNAUTHORIZED");
    const right = { dir, env, input: `${USER.password}\n` };
    const said = await vmsanOk(["login", secure.host, ...flags], right);
    const file = join(work, "docker/config.json");
    expect(said).toContain(file);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const inspect = ["inspect", "--cert-dir", join(work, "certs"), "--authfile", file];
    expect(await tool("skopeo", ...inspect, `docker://${named("thirty")}`)).toContain("Digest");
  });

  test("create --from-image pulls, picks this platform and boots", async () => {
    const vm = await vmsanJson<{ vmId: string }>(
      ["create", "--memory", "256", "--from-image", named("multi")].concat([
        "--ca-file",
        secure.caFile ?? "",
      ]),
      { dir, env },
    );
    const arch = ["exec", vm.vmId, "--", "/bin/sh", "-c", "echo $ARCH; cat /etc/arch"];
    expect(await vmsanOk(arch, { dir })).toBe("amd64\namd64");
    await vmsanOk(["rm", "-f", vm.vmId], { dir });
  });

  const known: Record<string, Record<string, unknown>> = {
    specials: {
      "a/kept": { mode: "6751", uid: 1234, gid: 70_000, links: ["a/harder", "a/kept", "hard"] },
      block: { type: "block device", device: "259:70000" },
      capable: { xattrs: { "security.capability": expect.stringMatching(/^01000002/) } },
      marked: { size: 0, xattrs: { "user.bytes": "00ff10" } },
      "opaque/new": { size: 3 },
      old: { mtime: "86401.000000000" },
    },
    thirty: { "own/28": { size: 2800 } },
    multi: { "etc/arch": { size: 5 } },
    large: { large: { size: LARGE } },
  };
  for (const name of Object.keys(known)) {
    test(`the disk of ${name} equals skopeo copy + umoci unpack`, async () => {
      const flags = ["--ca-file", secure.caFile ?? ""];
      const pulled = await vmsanJson<{ digest: string; layers: unknown[] }>(
        ["image", "pull", ...flags, named(name)],
        { dir, env },
      );
      expect(pulled.layers).toHaveLength({ specials: 3, thirty: 30 }[name] ?? 1);
      const layout = join(work, `reference-${name}`);
      await tool(
        "skopeo",
        "copy",
        "-q",
        "--authfile",
        join(work, "docker/config.json"),
        "--src-cert-dir",
        join(work, "certs"),
        "--dest-compress-format=gzip",
        `docker://${named(name)}`,
        `oci:${layout}:x`,
      );
      const bundle = join(work, `bundle-${name}`);
      await tool("umoci", "unpack", "--image", `${layout}:x`, bundle);
      const disk = join(work, `${name}.ext4`);
      await vmsanOk(["image", "disk", "-o", disk, named(name)], { dir });
      await tool("e2fsck", "-fn", disk);
      const found = treeOfDisk(disk, join(work, `dump-${name}`));
      const wanted = treeOfDirectory(join(bundle, "rootfs"));
      expect(found).toEqual(wanted);
      // So that two readers that see nothing do not count as equal.
      expect(found).toMatchObject(known[name] ?? {});
      await Promise.all([rm(disk), rm(bundle, { recursive: true, force: true })]);
    });
  }

  test("run boots the 30 zstd layers without asking the registry again", async () => {
    const names = (await vmsanOk(["run", "--memory", "256", named("thirty")], { dir })).trim();
    const wanted = Array.from({ length: 28 }, (_, index) => index + 1)
      .filter((index) => ![4, 9, 14, 19, 24].includes(index))
      .map(String);
    expect(names.split("\n").toSorted()).toEqual(wanted.toSorted());
  });

  test("push sends the same bytes back under another name, and says how each blob came there", async () => {
    const to = `${secure.host}/copies/large:2`;
    const flags = ["--ca-file", secure.caFile ?? ""];
    await vmsanOk(["image", "pull", ...flags, named("large")], { dir, env });
    type Report = { digest: string; destination: string; blobs: { how: string }[] };
    const pushed = await vmsanJson<Report>(["image", "push", ...flags, named("large"), to], {
      dir,
      env,
    });
    expect(pushed).toMatchObject({ destination: to });
    expect(pushed.blobs.map(({ how }) => how)).toContain("mounted");
    const inspect = ["inspect", "--cert-dir", join(work, "certs"), "--creds", TOOL_CREDENTIALS];
    const seen = JSON.parse(await tool("skopeo", ...inspect, `docker://${to}`)) as {
      Digest: string;
    };
    expect(seen.Digest).toBe(pushed.digest);
    // To a registry that has nothing of it: everything is sent.
    const fresh = `${plain.host}/copies/large:1`;
    const sent = await vmsanJson<Report>(["image", "push", named("large"), fresh], { dir, env });
    expect(sent.blobs.map(({ how }) => how)).toEqual(["sent", "sent"]);
    expect(sent.digest).toBe(pushed.digest);
    type History = { steps: { layer?: { size: number } }[] };
    const { steps } = await vmsanJson<History>(["image", "history", named("large")], { dir });
    expect(steps.filter(({ layer }) => layer !== undefined)).toHaveLength(1);
    expect(await errorCode(["image", "push", named("nothing")], { dir, env })).toBe(
      "ERR_IMAGE_NOT_FOUND",
    );
    const stranger = { dir, env: { DOCKER_CONFIG: join(work, "nobody") } };
    expect(await errorCode(["image", "push", ...flags, named("large"), to], stranger)).toBe(
      "ERR_IMAGE_UNAUTHORIZED",
    );
  });

  test("the daemon's log holds no secret", async () => {
    const log = await readFile(join(dir, "run/daemon.log"), "utf8");
    const basic = Buffer.from(TOOL_CREDENTIALS).toString("base64");
    for (const secret of [USER.password, basic, "wrong"]) expect(log).not.toContain(secret);
  });

  test("logout forgets", async () => {
    await vmsanOk(["logout", secure.host], { dir, env });
    const image = named("multi");
    expect(
      await errorCode(["image", "pull", "--ca-file", secure.caFile ?? "", image], { dir, env }),
    ).toBe("ERR_IMAGE_UNAUTHORIZED");
  });
});

test("a registry on loopback without TLS needs no flag", async () => {
  const image = `${plain.host}/test/plain:1`;
  const said = await vmsanOk(["run", "--memory", "256", image, "--", "/bin/cat", "/hard"], { dir });
  expect(said).toBe("kept");
});
