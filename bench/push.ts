/**
 * bench/push: `vmsan image push` against `skopeo copy` from an OCI layout; same images, same kind of registry
 * (Debian's docker-registry, an empty one each time, so that nobody takes blobs over from before), by turns.
 *
 *     node bench/push.ts [--rounds N] [--big MIB]
 *
 * The daemon runs already, as it does for users, and its CPU time counts as ours. `ratio` is ours / skopeo's,
 * of wall time: at most 2 is the aim.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { startRegistry } from "../test/registry/docker-registry.ts";
import { makeImage, noise, tarOf, writeLayout } from "../test/registry/fixture.ts";
import { bench } from "./lib/bench.ts";
import { callVmsan, daemonOf, ownHome, vmsan } from "./lib/home.ts";
import { byTurns, costOf, report } from "./lib/measure.ts";
import type { Cost } from "./lib/measure.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "5" }, big: { type: "string", default: "200" } },
});

/** What the image is called here. */
const NAME = "bench.test/push:1";

/** The images that are pushed: contents of their layers. */
const IMAGES: Record<string, () => Buffer[]> = {
  [`one layer of ${values.big} MiB`]: () => [tarOf("big", noise(Number(values.big) << 20, 1))],
  "30 layers of 1 MiB": () =>
    Array.from({ length: 30 }, (_, index) => tarOf(`f${index}`, noise(1 << 20, index))),
};

/** Do something with a new registry. */
async function withRegistry(body: (host: string) => Promise<Cost>): Promise<Cost> {
  const registry = await startRegistry();
  try {
    execFileSync("sync");
    return await body(registry.host);
  } finally {
    await registry.stop();
  }
}

await bench("push", async (own) => {
  const env = ownHome(own);
  const daemon = daemonOf(env);
  for (const [name, layers] of Object.entries(IMAGES)) {
    const layout = mkdtempSync(join(own.dir, "layout-"));
    const image = makeImage({ layers: layers() });
    writeLayout(layout, [{ top: image.manifest, tag: "x", images: [image] }]);
    execFileSync("skopeo", ["copy", "-q", `oci:${layout}:x`, `oci-archive:${layout}.tar:${NAME}`]);
    callVmsan(env, "image", "load", "-i", `${layout}.tar`);
    const costs = await byTurns(Number(values.rounds), {
      vmsan: async () =>
        withRegistry(async (host) =>
          costOf([vmsan, "image", "push", NAME, `${host}/p:1`], { env, daemon }),
        ),
      skopeo: async () =>
        withRegistry(async (host) =>
          costOf([
            "skopeo",
            "copy",
            "-q",
            "--dest-tls-verify=false",
            `oci:${layout}:x`,
            `docker://${host}/p:1`,
          ]),
        ),
    });
    report({ bench: "push", name, ...costs, ratio: costs.vmsan.wallMs / costs.skopeo.wallMs });
  }
});
