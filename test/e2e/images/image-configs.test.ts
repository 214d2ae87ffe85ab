/** In a real guest: what of an odd image configuration only a kernel and a boot can show. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { installation, temporary } from "../../fixtures/ladder.ts";
import { dockerArchive } from "../../image-configs/image.ts";
import { vmsan, vmsanOk } from "../support.ts";

const here = installation("kernel");
const work = temporary();

test("one image with all of it: root's mode, missing directories, numbers, Env, entrypoint", async () => {
  const archive = join(work.path, "odd.tar");
  const given = {
    name: "odd",
    config: {
      User: "1000",
      WorkingDir: "/made/by/engine",
      Volumes: { "/newvol": {} },
      Env: ["PATH=/bin", "WORD"],
      Entrypoint: [""],
    },
    root: { mode: 0o555, uid: 7, gid: 8 },
    passwd: "root:x:0:0:root:/root:/bin/sh\n1000:x:0:0::/root:/bin/sh\n",
    tree: [{ path: "secret/", mode: 0o700 }],
    probe: "id -u; pwd; stat -c '%a %u:%g' . / /newvol",
  };
  await writeFile(archive, dockerArchive(given, "odd:latest"));
  const first = "1000\n/made/by/engine\n755 0:0\n555 7:8\n755 0:0\n";
  await vmsanOk(
    ["create", "--name", "odd", "--memory", "256", "--from-image", `docker-archive:${archive}`],
    here,
  );
  expect(await vmsanOk(["exec", "odd", "/bin/sh", "-c", given.probe], here)).toBe(first);
  // Entered as root, as runc does; the command itself may not look inside.
  const closed = ["exec", "-w", "/secret", "odd", "sh", "-c", "pwd; ls 2>/dev/null || echo no"];
  expect(await vmsanOk(closed, here)).toBe("/secret\nno\n");
  // What root has changed stays across a stop and a start.
  await vmsanOk(["exec", "odd", "--sudo", "chmod", "0711", "/"], here);
  await vmsanOk(["stop", "odd"], here);
  await vmsanOk(["start", "odd"], here);
  const second = await vmsan(["exec", "odd", "stat", "-c", "%a %u:%g", "/"], here);
  expect([second.code, second.stdout.toString(), second.stderr]).toEqual([0, "711 7:8\n", ""]);
});
