/** The fields of a new VM, each with what it means and what it becomes in the request. */
import { linesOf, mount, pairs, secret } from "./create-lines.ts";
import { NETWORK, hasCard } from "./create-network.ts";
import { asText } from "./field.ts";
import type { Group, Request, Wishes } from "./field.ts";

const GIB = 2 ** 30;

const minutes = (value: string): number => Math.round(Number(value) * 60_000);

const ENDINGS = [
  { value: "suspend", label: "Sleep: memory is kept in a file" },
  { value: "stop", label: "Stop" },
  { value: "remove", label: "Remove it with its disk" },
];

/** All of the form. */
export const GROUPS: readonly Group[] = [
  {
    title: "What runs",
    folded: false,
    fields: [
      {
        name: "image",
        label: "Image",
        help: "Any image of a registry (node:22, ghcr.io/org/app:1), or runtime:NAME of the host's catalogue. Empty: the base image, a small Debian.",
        kind: "text",
        hint: "base",
        put: (value, request) => {
          if (value.startsWith("runtime:")) request["runtime"] = value.slice("runtime:".length);
          else request["image"] = value;
        },
      },
      {
        name: "name",
        label: "Name",
        help: "Unique on the host: lower-case letters, digits, '.', '_' and '-'. Empty: it is called by its ID.",
        kind: "text",
        put: asText("name"),
      },
    ],
  },
  {
    title: "Size",
    folded: false,
    fields: [
      {
        name: "vcpus",
        label: "Processors",
        help: "How many the guest sees.",
        kind: "number",
        first: "1",
        min: 1,
        max: 32,
        put: (value, request) => void (request["vcpus"] = Number(value)),
      },
      {
        name: "memory",
        label: "Memory",
        help: "What the guest has; the host gives it as it is used.",
        kind: "number",
        first: "512",
        unit: "MiB",
        min: 128,
        max: 32_768,
        put: (value, request) => void (request["memMib"] = Number(value)),
      },
      {
        name: "disk",
        label: "Disk",
        help: "How large its own disk may grow; at first it takes no room. It can be grown later.",
        kind: "number",
        first: "10",
        unit: "GiB",
        min: 1,
        max: 1024,
        put: (value, request) => void (request["diskSizeBytes"] = Number(value) * GIB),
      },
    ],
  },
  NETWORK,
  {
    title: "Commands and mounts",
    folded: true,
    fields: [
      {
        name: "env",
        label: "Environment",
        help: "For every command in it, one a line: KEY=VALUE; KEY alone takes away what the image has.",
        kind: "lines",
        hint: "NODE_ENV=test",
        put: (value, request) => void (request["env"] = linesOf(value)),
      },
      {
        name: "secrets",
        label: "Secrets",
        help: "Keys that its programs use without having them, one a line: TOKEN=value@api.example.com. The guest sees a placeholder in TOKEN; the host puts the value into requests to that domain, and to no other. With #header behind: in headers alone.",
        kind: "lines",
        hint: "TOKEN=value@api.example.com#header",
        shown: hasCard,
        put: (value, request) => void (request["secrets"] = linesOf(value).map(secret)),
      },
      {
        name: "user",
        label: "User",
        help: "Whom commands run as: name, number or uid:gid. Empty: the image's.",
        kind: "text",
        put: asText("user"),
      },
      {
        name: "workdir",
        label: "Working directory",
        help: "Where commands begin. It is made when it is missing. Empty: the image's.",
        kind: "text",
        hint: "/srv",
        put: asText("workdir"),
      },
      {
        name: "mounts",
        label: "Mounts",
        help: "One a line: data:/srv is the volume data, data:/srv:ro the same for reading only, /scratch a place on the VM's own disk.",
        kind: "lines",
        put: (value, request) => void (request["mounts"] = linesOf(value).map(mount)),
      },
      {
        name: "labels",
        label: "Labels",
        help: "For your own programs, one a line: name=value.",
        kind: "lines",
        put: (value, request) => void (request["labels"] = pairs(value)),
      },
    ],
  },
  {
    title: "End of life",
    folded: true,
    fields: [
      {
        name: "timeout",
        label: "Time limit",
        help: "After that long something is done with it. Empty: never.",
        kind: "number",
        unit: "min",
        min: 0.1,
        max: 35_000,
        put: (value, request) => void (request["timeoutMs"] = minutes(value)),
      },
      {
        name: "onTimeout",
        label: "At the limit",
        help: "What is done then.",
        kind: "choice",
        first: "stop",
        choices: ENDINGS,
        shown: (wishes) => (wishes["timeout"] ?? "") !== "",
        put: asText("onTimeout"),
      },
      {
        name: "idle",
        label: "Idle limit",
        help: "After that long without commands, connections or work of its processors. Empty: never.",
        kind: "number",
        unit: "min",
        min: 0.1,
        max: 35_000,
        put: (value, request) => {
          request["idle"] = { ms: minutes(value), action: "suspend" };
        },
      },
      {
        name: "onIdle",
        label: "When idle",
        help: "What is done then.",
        kind: "choice",
        first: "suspend",
        choices: ENDINGS,
        shown: (wishes) => (wishes["idle"] ?? "") !== "",
        put: (value, request) => {
          request["idle"] = { ...(request["idle"] as object), action: value };
        },
      },
    ],
  },
  {
    title: "Machine",
    folded: true,
    fields: [
      {
        name: "driver",
        label: "Driver",
        help: "What runs it: the best that this host can, or the one named.",
        kind: "choice",
        first: "auto",
        choices: [
          { value: "auto", label: "As the host can" },
          { value: "firecracker", label: "Firecracker" },
          { value: "qemu", label: "QEMU" },
        ],
        put: asText("driver"),
      },
      {
        name: "diskMode",
        label: "Disk",
        help: "The image shared and changes on a disk of its own, or one disk that is a copy.",
        kind: "choice",
        first: "overlay",
        choices: [
          { value: "overlay", label: "Shared image, own changes" },
          { value: "flat", label: "One disk, a copy" },
        ],
        put: asText("diskMode"),
      },
      {
        name: "pull",
        label: "Pull the image",
        help: "Whether the registry is asked although the image is here.",
        kind: "choice",
        first: "missing",
        choices: [
          { value: "missing", label: "When it is missing" },
          { value: "always", label: "Always" },
          { value: "never", label: "Never" },
        ],
        put: asText("pull"),
      },
      {
        name: "platform",
        label: "Platform",
        help: "Of an image that is there for several: linux/amd64. Empty: the host's.",
        kind: "text",
        put: asText("platform"),
      },
      {
        name: "init",
        label: "Init",
        help: "Boot the image's own init instead of the agent alone: its path, such as /sbin/init.",
        kind: "text",
        hint: "/sbin/init",
        put: asText("init"),
      },
      {
        name: "sysctls",
        label: "Kernel settings",
        help: "Values of /proc/sys, set before the first command, one a line: net.ipv4.ip_forward=1.",
        kind: "lines",
        put: (value, request) => void (request["sysctls"] = pairs(value)),
      },
      {
        name: "kernelArgs",
        label: "Kernel arguments",
        help: "Behind vmsan's own on the kernel's command line, one a line.",
        kind: "lines",
        put: (value, request) => void (request["kernelArgs"] = linesOf(value)),
      },
      {
        name: "bootTimeout",
        label: "Longest start",
        help: "How long a start may take until the guest answers. Empty: what the host needs.",
        kind: "number",
        unit: "s",
        min: 1,
        max: 86_400,
        put: (value, request) => void (request["bootTimeoutMs"] = Math.round(Number(value) * 1000)),
      },
      {
        name: "warm",
        label: "Warm start",
        help: "Whether it may go on from a machine of the same image that booted earlier, which is faster.",
        kind: "choice",
        first: "",
        choices: [
          { value: "", label: "As the host does by default" },
          { value: "yes", label: "Yes" },
          { value: "no", label: "No, boot" },
        ],
        put: (value, request) => void (request["warm"] = value === "yes"),
      },
    ],
  },
];

/** What stands in the form at first. */
export function firstWishes(): Wishes {
  return Object.fromEntries(
    GROUPS.flatMap(({ fields }) => fields.map(({ name, first }) => [name, first ?? ""])),
  );
}

/** The request for these wishes; what is left as it is, the gateway fills in. @throws what cannot be read */
export function requestOf(wishes: Wishes, admin: boolean): Request {
  const request: Request = { policy: {} };
  for (const { fields } of GROUPS) {
    for (const field of fields) {
      const value = (wishes[field.name] ?? "").trim();
      if (value === "" || (field.admin === true && !admin)) continue;
      if (field.shown !== undefined && !field.shown(wishes)) continue;
      field.put(value, request);
    }
  }
  return request;
}
