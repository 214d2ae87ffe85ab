/**
 * bench/build: a fully cached `vmsan build`, the builder's VM warm, against the same by buildah on this host
 * (Debian's, chroot isolation, a storage of its own); by turns.
 *
 *     node bench/build.ts [--rounds N]
 *
 * Needs root, the prepared kernel and runtime `builder`, umoci, skopeo and buildah. `ratio` is ours / the host's, of wall
 * time: at most 2 is the aim. Without KVM the builder's processor is emulated, and buildah in it is many times
 * slower whatever vmsan does: then vmsan's own processor time (client and daemon) tells more.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { baseImage } from "../test/builds/cases.ts";
import { freshDir, removeDir } from "../test/e2e/support.ts";
import { bench } from "./lib/bench.ts";
import { callVmsan, daemonOf, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const BASE = "local.test/bb:1";
const DOCKERFILE = `FROM ${BASE}
ENV A=1
COPY file /file
RUN echo one >/one
RUN echo two >/two
CMD ["/bin/cat", "/two"]
`;

await bench("build", async (own) => {
  const dir = await freshDir(["kernels", "runtimes", "initramfs", "probes"]);
  own.defer(async () => removeDir(dir));
  const env = { ...process.env, VMSAN_DIR: dir };
  const archive = await baseImage(own.dir, BASE);
  callVmsan(env, "image", "load", "-i", archive);
  const context = join(own.dir, "context");
  mkdirSync(context);
  writeFileSync(join(context, "Dockerfile"), DOCKERFILE);
  writeFileSync(join(context, "file"), "content\n");
  const storage = ["--root", join(own.dir, "root"), "--runroot", join(own.dir, "run")] as const;
  const buildah = ["buildah", ...storage, "--storage-driver", "vfs"] as const;
  const build = ["build", "--isolation=chroot", "--layers", "--format=docker"] as const;
  await costOf([...buildah, "pull", "-q", `oci-archive:${archive}`]);
  const daemon = daemonOf(env);
  const costs = await byTurns(Number(values.rounds), {
    vmsan: async () => costOf([vmsan, "build", "--network", "none", context], { env, daemon }),
    host: async () => costOf([...buildah, ...build, context]),
  });
  report({ bench: "build", ...costs, ratio: costs.vmsan.wallMs / costs.host.wallMs });
});
