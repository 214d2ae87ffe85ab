/**
 * bench/first: an image that is not there: from its last byte to the first command in it.
 *
 *     node bench/first.ts [--rounds N] [--mb 500] [--rate MB/S] [--driver auto|qemu|firecracker|fake]
 *
 * `run`: `vmsan run IMAGE -- COMMAND`, which builds the disk while layers come. The alternative in the
 * same run, by turns: `vmsan image pull IMAGE`, and then the same `run`, one after the other. A local
 * registry sends at most `--rate` megabytes a second (0: as fast as it can), and tells when it has
 * sent the last byte. `--driver fake` leaves the guest's boot out. Needs docker-registry and skopeo.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, readdirSync, rmSync, symlinkSync } from "node:fs";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startRegistry } from "../test/registry/docker-registry.ts";
import { makeImage, writeLayout } from "../test/registry/fixture.ts";
import { makeTar } from "../src/layers/testing.ts";
import type { Timing } from "../src/client/tracing/timeline.ts";
import { agentBinary } from "../src/util/package.ts";
import { bench, measured } from "./lib/bench.ts";
import { content } from "./lib/content.ts";
import { daemonOf, ownHome, vmsan } from "./lib/home.ts";
import { median, processTreeCpu, report } from "./lib/measure.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    mb: { type: "string", default: "500" },
    rate: { type: "string", default: "100" },
    driver: { type: "string", default: "auto" },
  },
});
const prepared = process.env["VMSAN_DIR"] ?? resolve(import.meta.dirname, "../.cache/vmsan");

/** Milliseconds between two looks at how much may be sent. */
const TICK_MS = 10;

/** A way to a server that lets so many bytes through in a second, whoever asks. */
class Throttle {
  /** When bytes last went to a client, as performance.now() tells. */
  last = 0;
  private readonly sockets = new Set<Socket>();
  private readonly bytesPerTick: number;
  private left = 0;
  private readonly paused = new Set<Socket>();
  private readonly timer: NodeJS.Timeout;
  private readonly server = createServer((client) => this.join(client));
  private readonly to: { host: string; port: number };

  constructor(to: string, megabytes: number) {
    const [host = "", port = ""] = to.split(":");
    this.to = { host, port: Number(port) };
    this.bytesPerTick = megabytes === 0 ? Infinity : (megabytes * 1e6 * TICK_MS) / 1000;
    this.timer = setInterval(() => {
      // What was sent too much in one tick is owed by the next ones.
      this.left = Math.min(this.bytesPerTick, this.left + this.bytesPerTick);
      if (this.left <= 0) return;
      for (const socket of this.paused) socket.resume();
      this.paused.clear();
    }, TICK_MS);
  }

  /** @returns `127.0.0.1:PORT` */
  async listen(): Promise<string> {
    await new Promise<void>((done) => this.server.listen(0, "127.0.0.1", done));
    return `127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): void {
    clearInterval(this.timer);
    this.server.close();
    for (const socket of this.sockets) socket.destroy();
  }

  private join(client: Socket): void {
    const server = connect(this.to);
    for (const socket of [client, server]) {
      this.sockets.add(socket);
      const other = socket === client ? server : client;
      // Whichever end breaks, the other one learns of it.
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.sockets.delete(socket);
        this.paused.delete(socket);
        other.destroy();
      });
    }
    client.pipe(server);
    server.on("data", (bytes: Buffer) => {
      client.write(bytes);
      this.last = performance.now();
      this.left -= bytes.length;
      if (this.left > 0) return;
      server.pause();
      this.paused.add(server);
    });
  }
}

/** Four gzip layers of so many megabytes, the largest at the bottom, and one with a program. */
function writeImage(layout: string, megabytes: number): void {
  const layers = [0.4, 0.3, 0.2, 0.1].map((share, layer) => {
    // Files as in distributions: many small ones, few large. They compress to two thirds.
    const count = Math.ceil((megabytes * 1.4e6 * share) / 25_000);
    return makeTar(
      Array.from({ length: count }, (_, file) => ({
        path: `srv/layer${layer}/dir${file % 300}/file-${file}`,
        data: content(file % 100 === 0 ? 1_500_000 : 2000 + (file % 16_000), file + layer),
      })),
    );
  });
  layers.push(makeTar([{ path: "agent", mode: 0o755, data: readFileSync(agentBinary()) }]));
  const image = makeImage({ layers });
  writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
}

/** How a command ended. */
interface Ended {
  /** As performance.now() tells. */
  at: number;
  /** When it had begun. */
  from: number;
  timing?: Timing;
}

/** Run vmsan to its end. */
async function toEnd(env: NodeJS.ProcessEnv, args: string[]): Promise<Ended> {
  const from = performance.now();
  const child = spawn(vmsan, args, { env, stdio: ["ignore", "ignore", "pipe"] });
  measured(child);
  let said = "";
  child.stderr.on("data", (text: Buffer) => (said = (said + text.toString()).slice(-20_000)));
  const code = await new Promise((done) => child.on("close", done));
  if (code !== 0) throw new Error(`${args.join(" ")}: status ${String(code)}: ${said}`);
  const at = performance.now();
  const line = said.split("\n").find((text) => text.startsWith('{"timing"'));
  return line === undefined
    ? { at, from }
    : { at, from, ...(JSON.parse(line) as { timing: Timing }) };
}

/** Milliseconds by step of what lies behind an instant. */
function behindOf({ from, timing }: Ended, last: number): Record<string, number> {
  const found: Record<string, number> = {};
  for (const { name, fromMs, ms, by } of timing?.steps ?? []) {
    const behind = Math.min(ms, from + fromMs + ms - last);
    const key = by === "client" ? name : `${by}: ${name}`;
    if (behind > 0) found[key] = Math.round((found[key] ?? 0) + behind);
  }
  return found;
}

await bench("first", async (own) => {
  const env = { ...ownHome(own), VMSAN_WARM: "off" };
  for (const name of ["kernels", "initramfs", "probes"]) {
    mkdirSync(env.VMSAN_DIR, { recursive: true });
    mkdirSync(join(prepared, name), { recursive: true });
    symlinkSync(join(prepared, name), join(env.VMSAN_DIR, name));
  }
  const registry = await startRegistry();
  own.defer(async () => await registry.stop());
  const layout = join(own.dir, "layout");
  writeImage(layout, Number(values.mb));
  const push = ["copy", "-q", "--dest-tls-verify=false", `oci:${layout}:x`];
  execFileSync("skopeo", [...push, `docker://${registry.host}/bench/first:1`]);
  const daemon = daemonOf(env);
  // The fake guest has the host's programs, a real one only the image's.
  const command = values.driver === "fake" ? ["true"] : ["/agent", "version"];
  const run = (image: string): string[] => {
    return ["run", "--timing", "--json", "--driver", values.driver, image, "--", ...command];
  };
  const ways: Record<string, (image: string) => Promise<Ended>> = {
    run: async (image) => await toEnd(env, run(image)),
    pullThenRun: async (image) => {
      await toEnd(env, ["image", "pull", image]);
      return await toEnd(env, run(image));
    },
  };
  const found: Record<
    string,
    { wall: number[]; behind: number[]; cpu: number[]; steps: object[] }
  > = {};
  for (let round = 0; round < Number(values.rounds); round += 1) {
    const names = Object.keys(ways);
    for (const name of round % 2 === 0 ? names : names.reverse()) {
      const throttle = new Throttle(registry.host, Number(values.rate));
      const image = `${await throttle.listen()}/bench/first:1`;
      try {
        const start = performance.now();
        const before = processTreeCpu(daemon);
        const ended = await ways[name]?.(image);
        if (ended === undefined) continue;
        const { wall, behind, cpu, steps } = (found[name] ??= {
          wall: [],
          behind: [],
          cpu: [],
          steps: [],
        });
        wall.push((ended.at - start) / 1000);
        behind.push((ended.at - throttle.last) / 1000);
        steps.push(behindOf(ended, throttle.last));
        cpu.push((processTreeCpu(daemon) - before) / 1000);
      } finally {
        throttle.close();
      }
      execFileSync(vmsan, ["image", "rm", image], { env, stdio: "ignore" });
      const disks = join(env.VMSAN_DIR, "rootfs");
      for (const entry of readdirSync(disks)) {
        rmSync(join(disks, entry), { recursive: true, force: true });
      }
      // What is still to be written burdens nobody's turn.
      execFileSync("sync");
      await sleep(500);
    }
  }
  for (const [name, { wall, behind, cpu, steps }] of Object.entries(found)) {
    report({
      bench: "first",
      name,
      mb: Number(values.mb),
      rate: Number(values.rate),
      driver: values.driver,
      seconds: median(wall),
      /** From the last byte that the registry sent to the end of the command. */
      secondsBehindLastByte: median(behind),
      daemonCpuSeconds: median(cpu),
      all: { wall, behind },
      /** What of it was whose, in milliseconds; steps lie within each other and side by side. */
      steps,
    });
  }
});
