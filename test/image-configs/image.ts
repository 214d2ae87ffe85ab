/**
 * Images with odd configurations, and what a command in them does: the table is cases.json, its
 * expectations were taken from Docker 20.10 (runc 1.1) by judge.ts.
 *
 * image.ts: an image of a case, as `docker save` would write it; dockerd and vmsan read the same.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { digestOf, makeTar } from "../../src/layers/testing.ts";
import type { TestEntry } from "../../src/layers/testing.ts";

/** What a command did. */
export interface Outcome {
  /** Exit status; 125 where the engine itself refuses to start a container. */
  status: number;
  stdout: string;
}

/** One image and one command in it. */
export interface ConfigCase {
  name: string;
  /** The image's `config`; a Cmd is added for `probe`. */
  config: Record<string, unknown>;
  /** Shell words to run; default: who and where one is. */
  probe?: string;
  /** null: the image has none. */
  passwd?: string | null;
  group?: string | null;
  tree?: TestEntry[];
  /** Mode and owner of `/` in the layer. */
  root?: { mode: number; uid: number; gid: number };
  /** As of `docker run`. `caller` is the environment of the command line itself. */
  options?: {
    user?: string;
    workdir?: string;
    env?: string[];
    entrypoint?: string;
    args?: string[];
    caller?: Record<string, string>;
  };
  docker?: Outcome;
  /** Where ours differs on purpose: what it does, and why. */
  vmsan?: Outcome & { because: string };
}

/** The table. */
export function configCases(): ConfigCase[] {
  return JSON.parse(readFileSync(join(import.meta.dirname, "cases.json"), "utf8")) as ConfigCase[];
}

const WHO = 'id -u; id -g; id -G; pwd; echo "$HOME"';
const PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n";
const GROUP = "root:x:0:\napp:x:1000:\nstaff:x:50:\nwheel:x:10:app\n";
const APPLETS = "cat echo env false grep id ls printf pwd sh stat true chmod";

/** The image's configuration with its defaults filled in. */
export function configOf(given: ConfigCase): Record<string, unknown> {
  const probes = given.probe !== undefined || given.config["Entrypoint"] === undefined;
  return {
    Env: ["PATH=/bin"],
    ...(probes ? { Cmd: ["/bin/sh", "-c", given.probe ?? WHO] } : {}),
    ...given.config,
  };
}

/** What is in the image, as entries of its one layer. */
export function entriesOf(given: ConfigCase): TestEntry[] {
  const { passwd = PASSWD, group = GROUP } = given;
  return [
    ...(given.root === undefined ? [] : [{ path: "./", ...given.root }]),
    ...["bin/", "etc/", "root/", "home/", "srv/", "proc/", "sys/", "dev/", "opt/"].map((path) => ({
      path,
    })),
    { path: "home/app/", uid: 1000, gid: 1000 },
    { path: "bin/busybox", mode: 0o755, data: readFileSync("/bin/busybox") },
    ...APPLETS.split(" ").map((name): TestEntry => ({
      path: `bin/${name}`,
      kind: "symlink",
      link: "busybox",
    })),
    ...(passwd === null ? [] : [{ path: "etc/passwd", data: passwd }]),
    ...(group === null ? [] : [{ path: "etc/group", data: group }]),
    ...(given.tree ?? []),
  ];
}

/** An archive for `docker load` and `docker-archive:`. */
export function dockerArchive(given: ConfigCase, name: string): Buffer {
  const layer = makeTar(entriesOf(given));
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === "arm64" ? "arm64" : "amd64",
      os: "linux",
      config: configOf(given),
      rootfs: { type: "layers", diff_ids: [digestOf(layer)] },
    }),
  );
  const configName = `${digestOf(config).slice(7)}.json`;
  const manifest = [{ Config: configName, RepoTags: [name], Layers: ["layer.tar"] }];
  return makeTar([
    { path: "layer.tar", data: layer },
    { path: configName, data: config },
    { path: "manifest.json", data: JSON.stringify(manifest) },
  ]);
}
