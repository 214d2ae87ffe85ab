/** OpenSSH's client and this process's input and output, joined to a VM's server of ssh. */
import { spawn } from "node:child_process";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Vm } from "../../client/vm.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import { hostName, sshOptions } from "../../client/ssh/config.ts";
import type { SshSetting } from "../../client/ssh/config.ts";
import { clientKey, noSsh, noteHostKeys } from "../../client/ssh/keys.ts";
import { messageOf } from "../../model/errors.ts";
import { packageRoot } from "../../util/package.ts";
import { plain } from "../output.ts";
import { writeTo } from "./write-to.ts";

/** How long a VM may sleep under a connection that stays open, in milliseconds. */
const ASLEEP_MS = 24 * 3_600_000;

/** How long the server has to take leave of its client, in milliseconds. */
const LEAVE_MS = 1000;

/** Signals that ssh gets from the terminal or is handed on. */
const FORWARDED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"] as const;

/** Keys made and known hosts noted, so that ssh can reach these VMs. */
export async function settingFor(vmsan: Vmsan, vms: readonly Vm[]): Promise<SshSetting> {
  const { layout } = vmsan.daemon;
  const { file } = await clientKey(layout);
  const keys = new Map<string, string>();
  for (const vm of vms) keys.set(vm.id, await vm.sshHostKey());
  const { VMSAN_URL: url = "" } = process.env;
  const all = new Set((await vmsan.survey()).vms.map(({ id }) => id));
  const exists = (id: string): boolean => all.has(id);
  const knownHosts = await noteHostKeys(layout, keys, url === "" ? exists : undefined);
  return {
    vmsan: join(packageRoot, "bin/vmsan"),
    dir: layout.root,
    ...(url === "" ? {} : { url }),
    keyFile: file,
    knownHosts,
  };
}

/** Run OpenSSH's client. @returns its exit status */
export async function runSsh(
  vmsan: Vmsan,
  vm: Vm,
  user: string | undefined,
  options: readonly string[],
  command: readonly string[],
): Promise<number> {
  const setting = await settingFor(vmsan, [vm]);
  const known = sshOptions(vm.view, setting).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
  // The first value that ssh sees is the one that counts.
  const login = user === undefined ? [] : ["-l", user];
  const args = [...login, ...options, ...known, "--", hostName(vm.view), ...command];
  const child = spawn("ssh", args, { stdio: "inherit" });
  const handlers = FORWARDED.map((name) => {
    // What the terminal sends reaches ssh as well; it decides when both of us end.
    const handler = (): void => {
      if (name !== "SIGINT" && name !== "SIGQUIT") child.kill(name);
    };
    process.on(name, handler);
    return { name, handler };
  });
  try {
    return await new Promise((resolve, reject) => {
      child.once("error", (error) => reject(noSsh("ssh", error)));
      child.once("close", (code) => resolve(code ?? 255));
    });
  } finally {
    for (const { name, handler } of handlers) process.off(name, handler);
  }
}

/**
 * Be the connection that ssh's ProxyCommand asks for: input and output are the server's.
 * @returns the exit status
 */
export async function pipeSsh(vmsan: Vmsan, vm: Vm): Promise<number> {
  const { publicKey } = await clientKey(vmsan.daemon.layout);
  let connected = true;
  const stream = await vm.ssh([publicKey], {
    reconnectMs: ASLEEP_MS,
    onConnection: (up) => (connected = up),
    onStdout: writeTo(process.stdout, () => leave()),
    // What the server itself complains of; it may be a hostile guest's.
    onStderr: (bytes) => void process.stderr.write(plain(bytes.toString("utf8"))),
  });
  const gone = Promise.withResolvers<void>();
  const leave = (): void => {
    stream.signal("SIGTERM");
    gone.resolve();
  };
  for (const name of FORWARDED) process.once(name, leave);
  // The server no longer reads: its exit says why.
  stream.stdin.on("error", () => undefined);
  let waking: Promise<unknown> | undefined;
  process.stdin.on("data", () => {
    if (connected || waking !== undefined) return;
    // The VM may have fallen asleep under the connection. What fails here the stream will tell.
    const over = (): void => (waking = undefined);
    waking = vm.prepareSsh().then(over, over);
  });
  process.stdin.pipe(stream.stdin);
  const over = stream.exit.then(
    ({ exitCode }) => exitCode,
    (error: unknown) => {
      process.stderr.write(`vmsan: ${messageOf(error)}\n`);
      return 1;
    },
  );
  const left = gone.promise.then(async () => await sleep(LEAVE_MS, 1, { ref: false }));
  const status = await Promise.race([over, left]);
  // It would keep this process.
  process.stdin.destroy();
  return status;
}
