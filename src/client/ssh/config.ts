/** What OpenSSH's client must be told to reach a VM. */
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { knownName } from "./keys.ts";

/** What is the same for all VMs of a VMSAN_DIR. */
export interface SshSetting {
  /** Absolute path of the command `vmsan`. */
  vmsan: string;
  /** Absolute path of VMSAN_DIR. */
  dir: string;
  /** Address of a gateway in place of this machine's daemon; its key is not written down. */
  url?: string;
  keyFile: string;
  knownHosts: string;
}

/** A word for the user's shell, by which ssh runs its ProxyCommand. */
function shellWord(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

/** Text in which ssh would replace %h and the like. */
function withoutTokens(text: string): string {
  return text.replaceAll("%", "%%");
}

/** A path as a value of ssh's configuration. @throws ERR_SSH_PATH for one that it cannot be told */
function pathValue(path: string): string {
  if (!/["\n\r\\$]/.test(path)) return `"${withoutTokens(path)}"`;
  throw new VmsanError({
    code: "ERR_SSH_PATH",
    message: `Cannot tell ssh of ${path}`,
    why: "Its configuration has no way to write quotes, backslashes, dollars and line breaks.",
    fix: "Use a VMSAN_DIR without them.",
  });
}

/** The name that ssh knows a VM by. */
export function hostName(view: VmView): string {
  return `${view.name ?? view.id}.vmsan`;
}

/**
 * Who logs in when nobody is named: as for `vmsan exec`. Undefined for a name that is no plain word: an
 * image may call its user whatever it likes, and this becomes a line of the user's configuration.
 */
function loginOf(view: VmView): string | undefined {
  const user = view.defaults.user ?? view.image?.config.user;
  if (user === undefined || user === "") return "root";
  return /^[A-Za-z0-9_][\w.:+-]*$/.test(user) ? user : undefined;
}

/** Options for one VM, by their names. */
export function sshOptions(view: VmView, setting: SshSetting): [string, string][] {
  const { vmsan, dir, url } = setting;
  const environment =
    url === undefined
      ? ["-u", "VMSAN_URL", `VMSAN_DIR=${dir}`]
      : [`VMSAN_DIR=${dir}`, `VMSAN_URL=${url}`];
  const command = ["env", ...environment, vmsan, "ssh", "--stdio", view.id].map(shellWord);
  const login = loginOf(view);
  return [
    ["ProxyCommand", withoutTokens(command.join(" "))],
    ["HostKeyAlias", knownName(view.id)],
    ["UserKnownHostsFile", pathValue(setting.knownHosts)],
    ["GlobalKnownHostsFile", "/dev/null"],
    ["StrictHostKeyChecking", "yes"],
    ["UpdateHostKeys", "no"],
    ["CheckHostIP", "no"],
    ["IdentityFile", pathValue(setting.keyFile)],
    ["IdentitiesOnly", "yes"],
    ["PreferredAuthentications", "publickey"],
    ...(login === undefined ? [] : [["User", login] satisfies [string, string]]),
  ];
}

/** A block of ssh's configuration for one VM. */
export function hostBlock(view: VmView, setting: SshSetting): string {
  const lines = sshOptions(view, setting).map(([name, value]) => `  ${name} ${value}\n`);
  return `Host ${hostName(view)}\n${lines.join("")}`;
}
