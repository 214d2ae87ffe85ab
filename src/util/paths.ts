/** The layout of VMSAN_DIR; every path of it is named here and nowhere else. */
import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";

/** The directory that holds everything of one installation: VMSAN_DIR, else ~/.vmsan. */
export function vmsanDir(environment: NodeJS.ProcessEnv = process.env): string {
  const given = environment["VMSAN_DIR"];
  if (given === undefined || given === "") return join(homedir(), ".vmsan");
  return isAbsolute(given) ? given : resolve(given);
}

/** Absolute paths below a VMSAN_DIR. */
export interface Layout {
  root: string;
  /** Runtime files of the daemon: socket, lock, log. Mode 0700. */
  run: string;
  socket: string;
  daemonLock: string;
  daemonLog: string;
  /** The last events, a line each. */
  eventJournal: string;
  /** One directory a VM. */
  vms: string;
  /** One directory a snapshot. */
  snapshots: string;
  /** One directory a volume. */
  volumes: string;
  /** One directory a template of warm starts. */
  templates: string;
  /** Content store: blobs and image index. */
  images: string;
  /** Cached disk images. */
  rootfs: string;
  kernels: string;
  initramfs: string;
  /** Built or unpacked guest agents. */
  agent: string;
  /** Programs that `setup` brought: Firecracker, jailer. */
  bin: string;
  /** Mirrors and insecure registries, edited by the user. */
  registriesFile: string;
  /** The user's catalogue of runtimes. */
  runtimesFile: string;
  /** Artefacts of runtimes (base image …). */
  runtimes: string;
  /** Leases of the network. */
  network: string;
  /** One document a private network. */
  privateNetworks: string;
  /** Results of host probes. */
  probes: string;
  /** What Node.js keeps of compiled modules. */
  compileCache: string;
  /** What `vmsan serve` keeps: keys, its secret, the audit log. Mode 0700. */
  gateway: string;
  /** What `vmsan node` keeps: its certificates, its pods' documents and logs. Mode 0700. */
  node: string;
  /** Keys of ssh clients of this directory, and the host keys they know. Mode 0700. */
  ssh: string;
}

/** The layout of a VMSAN_DIR. */
export function layoutOf(root: string): Layout {
  const run = join(root, "run");
  return {
    root,
    run,
    socket: join(run, "daemon.sock"),
    daemonLock: join(run, "daemon.lock"),
    daemonLog: join(run, "daemon.log"),
    eventJournal: join(run, "events.jsonl"),
    vms: join(root, "vms"),
    snapshots: join(root, "snapshots"),
    volumes: join(root, "volumes"),
    templates: join(root, "templates"),
    images: join(root, "images"),
    rootfs: join(root, "rootfs"),
    kernels: join(root, "kernels"),
    initramfs: join(root, "initramfs"),
    agent: join(root, "agent"),
    bin: join(root, "bin"),
    registriesFile: join(root, "registries.json"),
    runtimesFile: join(root, "runtimes.json"),
    runtimes: join(root, "runtimes"),
    network: join(root, "network"),
    privateNetworks: join(root, "networks"),
    probes: join(root, "probes"),
    compileCache: join(root, "cache", "compile"),
    gateway: join(root, "gateway"),
    node: join(root, "node"),
    ssh: join(root, "ssh"),
  };
}

/** Where Docker's clients find the engine of a VMSAN_DIR, unless it is told otherwise. */
export function dockerSocket(root: string): string {
  return join(root, "docker.sock");
}
