/**
 * bench/build: `vmsan build` again, the builder's VM warm, against the same by buildah on this host (Debian's, chroot
 * isolation, a storage of its own), by turns: of what has not changed, of a file that was only touched (buildah finds
 * all in its cache), and with the last RUN changed.
 *
 *     node bench/build.ts [--rounds N] [--only unchanged|touched|changed]
 *
 * Needs root, the prepared kernel and runtime `builder`, umoci, skopeo and buildah. `ratio` is ours / the host's, of wall
 * time: at most 2 is the aim. Without KVM the builder's processor is emulated, and buildah in it is many times
 * slower whatever vmsan does: then vmsan's own processor time (client and daemon) tells more.
 */
import { mkdirSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { baseImage } from "../test/builds/cases.ts";
import { freshDir, removeDir } from "../test/e2e/support.ts";
import { bench } from "./lib/bench.ts";
import { callVmsan, daemonOf, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, only: { type: "string" } },
});
const BASE = "local.test/bb:1";
/** The Dockerfile with this in its last RUN. */
const dockerfile = (word: string): string => `FROM ${BASE}
ENV A=1
COPY file /file
RUN echo one >/one
RUN echo ${word} >/two
CMD ["/bin/cat", "/two"]
`;

/** What is done to the context before each build. */
const KINDS: Record<string, (context: string, round: number) => void> = {
  unchanged: () => undefined,
  touched: (context, round) => utimesSync(join(context, "file"), round, round),
  changed: (context, round) =>
    writeFileSync(join(context, "Dockerfile"), dockerfile(`round ${round}`)),
};

await bench("build", async (own) => {
  const dir = await freshDir(["kernels", "runtimes", "initramfs", "probes"]);
  own.defer(async () => removeDir(dir));
  const env = { ...process.env, VMSAN_DIR: dir };
  const archive = await baseImage(own.dir, BASE);
  callVmsan(env, "image", "load", "-i", archive);
  const context = join(own.dir, "context");
  mkdirSync(context);
  writeFileSync(join(context, "Dockerfile"), dockerfile("two"));
  writeFileSync(join(context, "file"), "content\n");
  const storage = ["--root", join(own.dir, "root"), "--runroot", join(own.dir, "run")] as const;
  const buildah = ["buildah", ...storage, "--storage-driver", "vfs"] as const;
  const build = ["build", "--isolation=chroot", "--layers", "--format=docker"] as const;
  await costOf([...buildah, "pull", "-q", `oci-archive:${archive}`]);
  const daemon = daemonOf(env);
  let round = 0;
  for (const [kind, prepare] of Object.entries(KINDS)) {
    if (values.only !== undefined && values.only !== kind) continue;
    const costs = await byTurns(Number(values.rounds), {
      vmsan: async () => {
        prepare(context, (round += 1));
        return costOf([vmsan, "build", "--network", "none", context], { env, daemon });
      },
      host: async () => {
        prepare(context, (round += 1));
        return costOf([...buildah, ...build, context]);
      },
    });
    report({ bench: "build", kind, ...costs, ratio: costs.vmsan.wallMs / costs.host.wallMs });
  }
});
