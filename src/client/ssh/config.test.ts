import { expect, test } from "vitest";
import type { VmView } from "../../model/api.ts";
import { hostBlock, sshOptions } from "./config.ts";

const setting = {
  vmsan: "/opt/vm san/bin/vmsan",
  dir: "/home/me/.vmsan",
  keyFile: "/home/me/.vmsan/ssh/client/id_ed25519",
  knownHosts: "/home/me/.vm%san/ssh/known_hosts",
};

function view(user: string | undefined, name?: string): VmView {
  return {
    id: "vm-0123abcd",
    name,
    defaults: { env: [], user },
    image: { config: {} },
  } as unknown as VmView;
}

const optionsOf = (of: VmView, more = {}): Record<string, string> =>
  Object.fromEntries(sshOptions(of, { ...setting, ...more }));

test("a block names the VM, its user and how to reach it; nothing is asked or trusted blindly", () => {
  const block = hostBlock(view("app", "web"), setting);
  expect(block.split("\n")[0]).toBe("Host web.vmsan");
  expect(block.split("\n").slice(1, -1)).toEqual(
    Object.entries(optionsOf(view("app"))).map(([name, value]) => `  ${name} ${value}`),
  );
  expect(optionsOf(view("app"))).toMatchObject({
    ProxyCommand: `env -u VMSAN_URL VMSAN_DIR=/home/me/.vmsan '/opt/vm san/bin/vmsan' ssh --stdio vm-0123abcd`,
    HostKeyAlias: "vmsan-vm-0123abcd",
    UserKnownHostsFile: '"/home/me/.vm%%san/ssh/known_hosts"',
    StrictHostKeyChecking: "yes",
    User: "app",
  });
});

test("a gateway's address is told, its key never", () => {
  const { ProxyCommand } = optionsOf(view("app"), { url: "https://h:7300" });
  expect(ProxyCommand).toBe(
    "env VMSAN_DIR=/home/me/.vmsan VMSAN_URL=https://h:7300 '/opt/vm san/bin/vmsan' ssh --stdio vm-0123abcd",
  );
});

test.each([
  ["app", "app"],
  ["1000:1000", "1000:1000"],
  [undefined, "root"],
  ["", "root"],
  ["x\n  ProxyCommand touch /tmp/owned", undefined],
  ["x ProxyCommand=y", undefined],
  ["-oProxyCommand=x", undefined],
  ["%h", undefined],
  ['a"b', undefined],
])("an image's user %j becomes %j", (user, login) => {
  expect(optionsOf(view(user))["User"]).toBe(login);
  expect(hostBlock(view(user), setting)).not.toMatch(/touch|=y/);
});

test("a path that ssh cannot be told is refused", () => {
  expect(() => optionsOf(view("app"), { keyFile: '/home/"/id' })).toThrow(
    expect.objectContaining({ code: "ERR_SSH_PATH" }),
  );
});
