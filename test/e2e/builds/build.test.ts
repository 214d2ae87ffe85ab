/**
 * `build`: a Dockerfile becomes an image of the store in the builder's VM. The VM boots once; under
 * emulation buildah takes its time, so each build here shows several things.
 */
import { execFileSync } from "node:child_process";
import { readFile, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { readCases } from "../../builds/cases.ts";
import { LONG, SECRET, compareCase, expectSame, openBench } from "../../builds/compare.ts";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { treeOfDisk } from "../../registry/trees.ts";
import { busyboxLayer, put, tool, umociImage } from "../images.ts";
import { vmsan, vmsanJson, vmsanOk } from "../support.ts";

const made = installation("disks");
const place = temporary();
let context = "";

const DOCKERFILE = `# syntax=docker/dockerfile:1
ARG TAG=1
FROM local.test/bb:\${TAG}
ARG WHO=nobody
RUN --mount=type=secret,id=s wc -c </run/secrets/s >/size && env | busybox grep -q ^PATH= && ! env | busybox grep ^GO && echo "hello $WHO" >/greeting && ! busybox grep -rs ${SECRET.slice(0, 9)} /dev/shm /tmp /var
COPY --chown=12:34 . /context/
COPY <<one <<two /here/
first of $WHO
one
second
two
ENV A=1
CMD ["/bin/cat", "/greeting"]
`;

/** Run a build with these words. */
const build = async (...words: string[]): ReturnType<typeof vmsan> =>
  vmsan(["build", "--network", "none", ...words, context], { dir: made.dir, timeoutMs: LONG });

beforeAll(async () => {
  const source = await umociImage(join(place.path, "bb"), [
    async (root) => {
      await busyboxLayer(root);
      for (const name of ["wc", "false"]) {
        await tool("ln", "-s", "busybox", join(root, "bin", name));
      }
    },
  ]);
  const archive = join(place.path, "bb.tar");
  await tool("skopeo", "copy", "-q", source, `oci-archive:${archive}:local.test/bb:1`);
  await vmsanOk(["image", "load", "-i", archive], { dir: made.dir });
  context = join(place.path, "context");
  await put(join(context, "Dockerfile"), DOCKERFILE);
  await put(join(context, "kept/file"), "kept");
  await put(join(context, "node_modules/large"), "x".repeat(100_000));
  await put(join(context, ".dockerignore"), "**/node_modules\n");
  await put(join(place.path, "secret"), SECRET);
  return async () => rm(context, { recursive: true, force: true });
});

test(
  "a Dockerfile with a secret and an ignored directory becomes an image; again, all is cached",
  async () => {
    const flags = ["-t", "local.test/out:1", "--build-arg", "WHO=me"];
    const secret = ["--secret", `id=s,src=${join(place.path, "secret")}`];
    const first = await build(...flags, ...secret);
    expect({ code: first.code, stderr: first.code === 0 ? "" : first.stderr }).toEqual({
      code: 0,
      stderr: "",
    });
    expect(first.stderr).toContain("STEP");
    const { config, digest } = await vmsanJson<{
      digest: string;
      config: { cmd: string[]; env: string[] };
    }>(["image", "inspect", "local.test/out:1"], { dir: made.dir });
    expect(first.stdout.toString().trim()).toBe(digest);
    expect(config.cmd).toEqual(["/bin/cat", "/greeting"]);
    expect(config.env).toContain("A=1");
    const disk = join(place.path, "out.ext4");
    await made.vmsan.images.disk("local.test/out:1", disk);
    const tree = treeOfDisk(disk, join(place.path, "scratch"));
    expect(
      Object.keys(tree)
        .filter((path) => path.startsWith("context/"))
        .sort(),
    ).toEqual(["context/.dockerignore", "context/Dockerfile", "context/kept", "context/kept/file"]);
    expect(tree["context/kept/file"]).toMatchObject({ uid: 12, gid: 34 });
    expect(tree["greeting"]?.size).toBe("hello me\n".length);
    expect(tree["here/one"]?.size).toBe("first of me\n".length);
    expect(tree["here/two"]?.size).toBe("second\n".length);
    // Not in a layer, and not on this host's disk.
    const grep = await tool("sh", "-c", `grep -rl ${SECRET} ${made.dir}/images || true`);
    expect(grep).toBe("");

    // The very same again is answered without the builder.
    const same = await build(...flags, ...secret);
    expect(same.stdout.toString().trim()).toBe(digest);
    expect(same.stderr).toContain("nothing has changed");
    expect(same.stderr).not.toContain("STEP");

    // The same context as GNU tar's archive on standard input; the image's files besides.
    const files = join(place.path, "files");
    const again = await vmsan(
      ["build", "--network", "none", ...flags, ...secret, "-o", `type=local,dest=${files}`, "-"],
      {
        dir: made.dir,
        timeoutMs: LONG,
        input: execFileSync("tar", ["-C", context, "-cz", "."]),
      },
    );
    expect(again.stdout.toString().trim()).toBe(digest);
    expect(again.stderr).toContain("Using cache");
    expect(await readFile(join(files, "context/kept/file"), "utf8")).toBe("kept");
  },
  LONG,
);

test(
  "what a Dockerfile means is what buildah on this host makes of it",
  async () => {
    const bench = await openBench(made.dir, place.path);
    const few = [
      "add-archives",
      "capabilities",
      "copy-links",
      "expansion-everywhere",
      "ignore-negations",
      "modes",
    ];
    try {
      for (const given of (await readCases()).filter(({ name }) => few.includes(name))) {
        expectSame(given, await compareCase(given, bench));
      }
    } finally {
      await bench.judge.remove();
    }
  },
  LONG,
);

test(
  "what fails says where, with its output, and leaves nothing in the builder",
  async () => {
    await put(join(context, "Dockerfile"), "FROM local.test/bb:1\nRUN echo so far && false\n");
    const { code, stderr } = await build("-t", "local.test/none:1");
    expect(code).toBe(1);
    expect(stderr).toContain("ERR_BUILD_FAILED");
    expect(stderr).toContain("STEP 2/2: RUN echo so far && false");
    const dead = await vmsan(["build", "--network", "none", "-f", "-", context], {
      dir: made.dir,
      timeoutMs: LONG,
      input: "FROM 127.0.0.1:9/nothing:1\n",
    });
    expect(dead.stderr).toContain("ERR_IMAGE_NETWORK");
    const inspect = await vmsan(["image", "inspect", "local.test/none:1"], { dir: made.dir });
    expect(inspect.stderr).toContain("ERR_IMAGE_NOT_FOUND");
    const left = ["exec", "vmsan-builder", "--", "find", "/run/vmsan-builds", "-type", "f"];
    expect(await vmsanOk(left, { dir: made.dir })).toBe("");
    expect(await readdir(join(made.dir, "images/leases"))).toEqual([]);
    const prune = await vmsanJson<{ removed: boolean }>(["build", "prune"], { dir: made.dir });
    expect(prune.removed).toBe(true);
    expect(await vmsanJson(["list"], { dir: made.dir })).toMatchObject({ count: 0 });
  },
  LONG,
);
