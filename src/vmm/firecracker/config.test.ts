import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { describe, expect, test } from "vitest";
import type { VmSpec } from "../../model/vm.ts";
import { faultMessage, type ApiCall } from "./api.ts";
import { isOlder } from "./binaries.ts";
import { planCgroup } from "./cgroup-plan.ts";
import {
  bootCalls,
  checkSpec,
  firecrackerArguments,
  jailerArguments,
  restoreCalls,
} from "./config.ts";
import { mountOptions } from "./jail.ts";

interface Field {
  type: string;
  required?: boolean;
  enum?: string[];
  min?: number;
  max?: number;
  fields?: Record<string, Field>;
  items?: Field;
}
interface Rule {
  phase: string;
  id?: string;
  fields?: Record<string, Field>;
}
const rulesFile = resolve(
  import.meta.dirname,
  "../../../test/firecracker/standin/rules/rules.json",
);
const rules = JSON.parse(readFileSync(rulesFile, "utf8")) as Record<string, Rule>;

/** What the table says is wrong with a value; the stand-in has its own implementation of this. */
function problems(field: Field, value: unknown, at: string): string[] {
  if (field.type === "object") {
    const object = value as Record<string, unknown>;
    const fields = field.fields ?? {};
    return [
      ...Object.keys(object).flatMap((name) => {
        const known = fields[name];
        return known === undefined
          ? [`${at}.${name} unknown`]
          : problems(known, object[name], `${at}.${name}`);
      }),
      ...Object.keys(fields).filter((name) => fields[name]?.required === true && !(name in object)),
    ];
  }
  if (field.type === "array") {
    const items = field.items;
    if (!Array.isArray(value)) return [`${at} is no array`];
    return items === undefined ? [] : value.flatMap((one) => problems(items, one, at));
  }
  if (field.type === "integer") {
    const ok = Number.isInteger(value) && Number(value) >= (field.min ?? 0);
    return ok && Number(value) <= (field.max ?? Number.MAX_SAFE_INTEGER)
      ? []
      : [`${at} ${String(value)}`];
  }
  if (typeof value !== field.type) return [`${at} is a ${typeof value}`];
  return field.enum === undefined || field.enum.includes(String(value))
    ? []
    : [`${at} ${String(value)}`];
}

/** What is wrong with a call. */
function wrong(call: ApiCall): string[] {
  const name = call.path.replace(/^\/(drives|network-interfaces)\/\w+$/, "/$1/{id}");
  const rule = rules[`${call.method} ${name}`];
  if (rule === undefined) return [`${call.method} ${call.path} unknown`];
  const body = (call.body ?? {}) as Record<string, unknown>;
  const id = rule.id === undefined || call.path.endsWith(`/${String(body[rule.id])}`);
  const found = problems({ type: "object", fields: rule.fields ?? {} }, body, call.path);
  return id ? found : [...found, "the ids differ"];
}

const spec: VmSpec = {
  id: "vm-01234567",
  dir: "/v/vm-01234567",
  vcpus: 2,
  memMib: 512,
  kernel: "/k/vmlinux",
  initramfs: "/k/initramfs",
  kernelArgs: ["vmsan.root=overlay"],
  disks: [
    { role: "base", path: "/i/base.ext4", readonly: true },
    { role: "upper", path: "/v/upper.ext4", readonly: false },
  ],
  network: { netns: "/run/netns/x", tap: "tap0", mac: "02:00:00:00:00:01" },
  isolation: { seccomp: true, pidNamespace: true, cgroup: true, networkNamespace: true },
};
const limiter = {
  bandwidth: { size: 1000, refill_time: 100 },
  ops: { size: 10, refill_time: 100 },
};

describe("calls", () => {
  test("every call keeps to the vendor's rules, before the start", () => {
    for (const prefix of ["/", ""]) {
      const choices = {
        prefix,
        arch: "x86_64",
        driveLimits: limiter,
        networkLimits: limiter,
      } as const;
      for (const call of [...bootCalls(spec, choices), ...restoreCalls(spec, choices, true)]) {
        expect(wrong(call), `${call.method} ${call.path}`).toEqual([]);
        const name = call.path.replace(/^\/(drives|network-interfaces)\/\w+$/, "/$1/{id}");
        expect(["pre", "any"]).toContain(rules[`${call.method} ${name}`]?.phase);
      }
    }
  });

  test("the check itself finds what is wrong", () => {
    const put = (path: string, body: object): ApiCall => ({ method: "PUT", path, body });
    expect(wrong(put("/nonsense", {}))).not.toEqual([]);
    expect(wrong(put("/machine-config", { vcpu_count: 256, mem_size_mib: 1 }))).not.toEqual([]);
    expect(wrong(put("/machine-config", { vcpu_count: 1 }))).not.toEqual([]);
    expect(wrong(put("/vsock", { guest_cid: 3, uds_path: "x", more: 1 }))).not.toEqual([]);
    expect(wrong(put("/drives/a", { drive_id: "b", is_root_device: false }))).not.toEqual([]);
  });

  test("what Firecracker cannot do is refused before anything is made", () => {
    const refused = (part: Partial<VmSpec>) => () => checkSpec({ ...spec, ...part });
    expect(refused({})).not.toThrow();
    expect(refused({ vcpus: 33 })).toThrow(/Cannot run/);
    expect(refused({ id: "vm_1" })).toThrow(/Cannot run/);
    expect(refused({ network: { socket: "/s", mac: "02:00:00:00:00:01" } })).toThrow(/Cannot run/);
    expect(refused({ network: { mac: "02:00:00:00:00:01" } })).toThrow(/Cannot run/);
  });

  test("a fault's reason, also out of an answer that is not JSON", () => {
    expect(faultMessage('{"fault_message":"why"}')).toBe("why");
    expect(faultMessage('{ "fault_message": "two\nlines" }')).toBe("two\nlines");
    expect(faultMessage('{ "error": "large.\nAll dropped." }')).toContain("large.");
    expect(faultMessage("")).toBe("no reason given");
  });
});

describe("command lines", () => {
  const jail = {
    jailer: "/b/jailer",
    firecracker: "/b/firecracker",
    base: "/v/jail",
    uid: 7,
    gid: 8,
  };

  test("the jailer's: everything on, and each switch off", () => {
    const cgroup = { version: 2, settings: [["cpu.max", "125000 100000"]] } satisfies object as {
      version: 2;
      settings: [string, string][];
    };
    const full = jailerArguments(spec, { ...jail, netns: "/run/netns/x", cgroup }).join(" ");
    expect(full).toBe(
      "/b/jailer --id vm-01234567 --exec-file /b/firecracker --uid 7 --gid 8 --chroot-base-dir /v/jail --netns /run/netns/x --new-pid-ns --cgroup-version 2 --parent-cgroup vmsan --cgroup cpu.max=125000 100000 --resource-limit no-file=2048 -- --api-sock /run/api.sock --log-path /run/vmm.log --level Warning",
    );
    const off = { seccomp: false, pidNamespace: false, cgroup: false, networkNamespace: false };
    const bare = jailerArguments({ ...spec, isolation: off }, jail);
    expect(bare).toContain("--no-seccomp");
    for (const flag of ["--new-pid-ns", "--cgroup", "--netns"]) expect(bare).not.toContain(flag);
    expect(firecrackerArguments(spec, "")).not.toContain("--no-seccomp");
  });

  test("control groups: version 2 with all controllers, else version 1, else said", async () => {
    const v2 = { v1: {}, v2: { path: "/tmp", controllers: ["cpu", "memory", "pids", "io"] } };
    expect((await planCgroup(spec, v2)).cgroup).toMatchObject({ version: 2 });
    const hybrid = {
      v1: { cpu: "/tmp", memory: "/tmp", pids: "/tmp" },
      v2: { path: "/tmp", controllers: [] },
    };
    const one = await planCgroup(spec, hybrid);
    expect(one.cgroup?.version).toBe(1);
    expect(one.cgroup?.settings.map(([file]) => file)).toContain("memory.limit_in_bytes");
    const none = await planCgroup(spec, { v1: {} });
    expect(none.cgroup).toBeUndefined();
    expect(none.notEnforced).toHaveLength(3);
  });
});

test("mount options of the file system that really holds a path", () => {
  const info = [
    "1 0 8:1 / / rw,relatime - ext4 /dev/sda rw",
    "2 1 0:5 / /srv rw,nodev - tmpfs tmpfs rw",
    String.raw`3 2 0:6 / /srv/a\040b rw,noexec - tmpfs tmpfs rw`,
  ].join("\n");
  expect(mountOptions(info, "/home/x")).toEqual(["rw", "relatime"]);
  expect(mountOptions(info, "/srv/x")).toContain("nodev");
  expect(mountOptions(info, "/srv/a b/c")).toContain("noexec");
  expect(mountOptions(info, "/srvx")).toEqual(["rw", "relatime"]);
});

test("versions compare by number", () => {
  expect(isOlder("1.9.2", "1.10.0")).toBe(true);
  expect(isOlder("1.10.0", "1.10.0")).toBe(false);
  expect(isOlder("1.16.1-dev", "1.16.0")).toBe(false);
});
