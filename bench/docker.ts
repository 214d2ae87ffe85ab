/**
 * bench/docker: Docker's own command line through `vmsan serve --docker` against vmsan's, in the same run and by turns:
 * `docker run --rm IMAGE true` against `vmsan run IMAGE -- true`, `docker exec` against `vmsan exec` in the same guest, and
 * how fast `docker logs` gives what a container has printed.
 *
 *   node bench/docker.ts [--rounds N] [--mib N]
 *
 * With the kernel of the VMSAN_DIR that is set and a `docker` in PATH. Prints JSON lines.
 */
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { busyboxLayer, tool, umociImage } from "../test/e2e/images.ts";
import { bench, measured } from "./lib/bench.ts";
import { callVmsan, ownHome, vmsan } from "./lib/home.ts";
import { byTurns, costOf, median, report } from "./lib/measure.ts";

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    mib: { type: "string", default: "100" },
  },
});
const rounds = Number(flags.rounds);
const mib = Number(flags.mib);
const root = resolve(import.meta.dirname, "..");
const prepared = process.env["VMSAN_DIR"] ?? join(root, ".cache/vmsan");

await bench("docker", async (own) => {
  const { dir } = own;
  const home = ownHome(own);
  mkdirSync(home.VMSAN_DIR, { recursive: true });
  for (const name of ["kernels", "initramfs", "probes"]) {
    symlinkSync(join(prepared, name), join(home.VMSAN_DIR, name));
  }
  const layout = await umociImage(
    join(dir, "image"),
    [
      busyboxLayer,
      async (rootfs) => {
        for (const name of ["true", "yes", "head"]) {
          await tool("ln", "-s", "busybox", join(rootfs, "bin", name));
        }
      },
    ],
    { env: ["PATH=/bin"] },
  );
  const archive = join(dir, "alpine.tar");
  await tool("skopeo", "copy", "-q", layout, `docker-archive:${archive}:alpine:latest`);
  callVmsan(home, "image", "load", "-i", archive);

  const server = spawn(vmsan, ["serve", "--docker", "--listen", "127.0.0.1:0", "--json"], {
    env: home,
    stdio: ["ignore", "pipe", "inherit"],
  });
  measured(server);
  await once(server.stdout, "data");
  const env = {
    ...home,
    DOCKER_HOST: `unix://${home.VMSAN_DIR}/docker.sock`,
    DOCKER_CONFIG: join(dir, "config"),
  };
  const docker = (...words: string[]): string => {
    // What is printed while it is read is read, too, which can be much.
    const { status, stdout, stderr } = spawnSync("docker", words, {
      env,
      encoding: "utf8",
      maxBuffer: mib * 2 ** 21,
    });
    if (status === 0) return stdout.trim();
    throw new Error(`docker ${words.join(" ")}: status ${status}: ${stderr}`);
  };

  const runs = await byTurns(rounds, {
    docker: async () => await costOf(["docker", "run", "--rm", "alpine", "true"], { env }),
    vmsan: async () => await costOf([vmsan, "run", "alpine", "--", "true"], { env }),
  });
  report({ name: "docker run --rm alpine true", ...runs.docker });
  report({ name: "vmsan run alpine -- true", ...runs.vmsan });
  report({ name: "ratio of wall times", value: runs.docker.wallMs / runs.vmsan.wallMs });

  const script = `yes 0123456789012345678901234567890123456789012345678901234567890 | head -c ${mib << 20}; echo; echo end; sleep 100000`;
  docker("run", "-d", "--name", "bench", "alpine", "sh", "-c", script);
  const vm = docker("inspect", "bench", "--format", "{{slice .Id 0 12}}");
  const execs = await byTurns(rounds * 8, {
    docker: async () => await costOf(["docker", "exec", "bench", "true"], { env }),
    vmsan: async () => await costOf([vmsan, "exec", vm, "true"], { env }),
  });
  report({ name: "docker exec bench true", ...execs.docker });
  report({ name: "vmsan exec VM true", ...execs.vmsan });
  report({ name: "more, in ms", value: execs.docker.wallMs - execs.vmsan.wallMs });

  // All of it is in the log before it is read.
  while (docker("logs", "--tail", "1", "bench") !== "end") {
    await new Promise((done) => setTimeout(done, 500));
  }
  const times: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    times.push((await costOf(["docker", "logs", "bench"], { env })).wallMs);
  }
  const ms = median(times);
  report({
    name: `docker logs of ${mib} MiB`,
    ms,
    megabytesPerSecond: (mib * 2 ** 20) / 1000 / ms,
  });
});
