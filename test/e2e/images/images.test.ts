/** Images that nobody here made by hand run as their makers meant them to. */
import {
  chmod,
  chown,
  link,
  lstat,
  mkdir,
  mkdtemp,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { buildGo } from "../../firecracker/support.ts";
import { busyboxLayer, put, tool, umociImage } from "../images.ts";
import { freshDir, removeDir, vmsan, vmsanOk } from "../support.ts";

let dir = "";
let work = "";
beforeAll(async () => {
  dir = await freshDir(["kernels", "initramfs", "probes"]);
  work = await mkdtemp(join(tmpdir(), "vmsan-images-"));
});
afterAll(async () => {
  await removeDir(dir);
  await rm(work, { recursive: true, force: true });
});

const run = (image: string, ...command: string[]): Promise<string> =>
  vmsanOk(["run", "--memory", "256", image, ...(command.length > 0 ? ["--", ...command] : [])], {
    dir,
  });

test("layers with whiteouts, opaque directories and hard links, by umoci", async () => {
  const image = await umociImage(join(work, "layers"), [
    busyboxLayer,
    async (rootfs) => {
      await put(join(rootfs, "a/gone"), "gone");
      await put(join(rootfs, "a/kept"), "kept");
      await put(join(rootfs, "b/one"), "one");
      await link(join(rootfs, "a/kept"), join(rootfs, "hard"));
      // chown takes setuid away: mode last.
      await chown(join(rootfs, "a/kept"), 1234, 4321);
      await chmod(join(rootfs, "a/kept"), 0o4751);
    },
    async (rootfs) => {
      await rm(join(rootfs, "a/gone"));
      await rm(join(rootfs, "b"), { recursive: true });
      await put(join(rootfs, "b/two"), "two");
      await tool("mknod", join(rootfs, "null"), "c", "1", "3");
      await symlink("../a/kept", join(rootfs, "b/link"));
    },
  ]);
  expect(await run(image, "/bin/sh", "-c", "find /a /b | busybox sort")).toBe(
    "/a\n/a/kept\n/b\n/b/link\n/b/two\n",
  );
  expect(
    await run(
      image,
      "/bin/busybox",
      "stat",
      "-c",
      "%n %a %u:%g %h %F",
      "/a/kept",
      "/hard",
      "/null",
    ),
  ).toBe(
    "/a/kept 4751 1234:4321 2 regular file\n/hard 4751 1234:4321 2 regular file\n/null 644 0:0 1 character special file\n",
  );
  expect(await run(image, "/bin/busybox", "cat", "/b/link")).toBe("kept");
});

test("one static binary, no shell, no directory", async () => {
  const source = join(work, "hello.go");
  await writeFile(
    source,
    'package main\nimport "os"\nfunc main() { os.Stdout.WriteString("static " + os.Args[1] + "\\n") }\n',
  );
  const binary = join(work, "hello");
  buildGo(work, source, binary);
  const image = await umociImage(
    join(work, "static"),
    [async (rootfs) => void (await tool("cp", binary, join(rootfs, "hello")))],
    { entrypoint: ["/hello"], cmd: ["default"] },
  );
  expect(await run(image)).toBe("static default\n");
  expect(await run(image, "words")).toBe("static words\n");
});

test("USER, ENTRYPOINT, CMD, WORKDIR and ENV are honoured; archives too", async () => {
  const image = await umociImage(
    join(work, "config"),
    [
      busyboxLayer,
      async (rootfs) => {
        await put(
          join(rootfs, "etc/passwd"),
          "root:x:0:0:root:/root:/bin/sh\napp:x:1500:1600:App:/srv/app:/bin/sh\n",
        );
        await put(join(rootfs, "etc/group"), "root:x:0:\napp:x:1600:\nextra:x:1700:app\n");
        await mkdir(join(rootfs, "srv/app"), { recursive: true });
      },
    ],
    {
      user: "app",
      workdir: "/srv/app",
      entrypoint: ["/bin/sh", "-c"],
      cmd: ["id -u; id -g; id -G; pwd; echo $GREETING $HOME"],
      env: ["GREETING=hi"],
    },
  );
  const expected = "1500\n1600\n1600 1700\n/srv/app\nhi /srv/app\n";
  expect(await run(image)).toBe(expected);
  const archive = join(work, "image.tar");
  await tool("skopeo", "copy", image, `docker-archive:${archive}:test/config:1`);
  expect(await run(`docker-archive:${archive}`)).toBe(expected);
  const oci = join(work, "image.oci.tar");
  await tool("skopeo", "copy", image, `oci-archive:${oci}:latest`);
  expect(await run(`oci-archive:${oci}`)).toBe(expected);
  // Flags of the command win over the image.
  expect(
    await vmsanOk(
      [
        "run",
        "--memory",
        "256",
        "-u",
        "7:8",
        "-w",
        "/",
        "-e",
        "GREETING=ho",
        image,
        "id -u; id -g; pwd; echo $GREETING",
      ],
      { dir },
    ),
  ).toBe("7\n8\n/\nho\n");
});

test("a bare tree and a tarball of it", async () => {
  const tree = join(work, "tree");
  await mkdir(tree);
  await busyboxLayer(tree);
  expect(await run(`rootfs:${tree}`, "/bin/echo", "dir")).toBe("dir\n");
  const tarball = join(work, "tree.tar.gz");
  await tool("tar", "-C", tree, "-czf", tarball, ".");
  expect(await run(`rootfs:${tarball}`, "/bin/echo", "tar")).toBe("tar\n");
});

test("40,000 files and a gigabyte", async () => {
  const image = await umociImage(join(work, "large"), [
    busyboxLayer,
    async (rootfs) => {
      const content = Buffer.alloc(26_000, "a line that compresses well\n");
      for (let d = 0; d < 200; d += 1) {
        const sub = join(rootfs, "data", `dir-${d}`);
        await mkdir(sub, { recursive: true });
        await Promise.all(
          Array.from({ length: 200 }, (_, f) => writeFile(join(sub, `file-${f}`), content)),
        );
      }
    },
  ]);
  expect(
    await run(
      image,
      "/bin/sh",
      "-c",
      "/bin/busybox find /data -type f | /bin/busybox wc -l; /bin/busybox du -s /data | /bin/busybox cut -f1 | /bin/busybox awk '{ print ($1 > 1000000) }'",
    ),
  ).toBe("40000\n1\n");
});

test("nothing of the runs is left", async () => {
  const list = await vmsan(["list", "--json"], { dir });
  expect(JSON.parse(list.stdout.toString())).toMatchObject({ count: 0 });
  await expect(lstat(join(dir, "vms", "x"))).rejects.toThrow("ENOENT");
});
