/** Checks of what vmsan itself keeps: agent, kernel, base image, daemon, leftovers. */
import { access, readFile, readdir, stat } from "node:fs/promises";
import { listKernels, verifyKernel } from "../boot/kernel.ts";
import { errnoOf } from "../model/errors.ts";
import { listBuiltRuntimes } from "../runtimes/index.ts";
import { agentBinary, packageVersion } from "../util/package.ts";
import { which } from "../util/which.ts";
import type { Check } from "./check.ts";
import { findRemains, removeRemains } from "./remains.ts";

/** First bytes of an ELF file. */
const elfMagic = Buffer.from([0x7f, 0x45, 0x4c, 0x46]);

export const artefactChecks: readonly Check[] = [
  {
    name: "agent",
    run: async () => {
      const path = process.env["VMSAN_AGENT"] ?? agentBinary();
      try {
        const bytes = await readFile(path);
        if (bytes.subarray(0, 4).equals(elfMagic)) return { status: "ok", detail: `${path}.` };
        return { status: "fail", detail: `${path} is no program.`, fix: "Install vmsan again." };
      } catch (error) {
        if (errnoOf(error) !== "ENOENT") throw error;
        const fix = "In a checkout run `npm run demo` (it needs Go); else install vmsan again.";
        return { status: "fail", detail: `The guest agent ${path} is missing.`, fix };
      }
    },
  },
  {
    name: "kernel",
    run: async ({ layout }) => {
      const kernels = await listKernels(layout.kernels);
      if (kernels.length === 0) {
        return {
          status: "warn",
          detail: "No kernel yet; the first VM fetches one.",
          fix: "vmsan setup",
        };
      }
      const wrong: string[] = [];
      for (const kernel of kernels) if (!(await verifyKernel(kernel))) wrong.push(kernel.id);
      if (wrong.length === 0) {
        return {
          status: "ok",
          detail: `${kernels.map(({ version }) => version).join(", ")}, checksums match.`,
        };
      }
      return {
        status: "fail",
        detail: `Not the bytes that were stored: ${wrong.join(", ")}.`,
        fix: `Remove ${layout.kernels}, then run \`vmsan setup\`.`,
      };
    },
  },
  {
    name: "runtimes",
    run: async ({ layout }) => {
      const built = await listBuiltRuntimes(layout.runtimes);
      if (built.length > 0) {
        const named = built.map(({ name, createdAt }) => `${name} (${createdAt.slice(0, 10)})`);
        return { status: "ok", detail: `Made: ${named.join(", ")}.` };
      }
      return {
        status: "warn",
        detail: "No base image yet; the first VM makes it.",
        fix: "vmsan setup",
      };
    },
  },
  {
    name: "image-tools",
    run: async ({ layout }) => {
      const tools = ["mmdebstrap", "fakechroot", "fakeroot"];
      const missing: string[] = [];
      for (const tool of tools) if ((await which(tool)) === undefined) missing.push(tool);
      if (missing.length === 0)
        return { status: "ok", detail: "mmdebstrap, fakechroot and fakeroot." };
      const made = (await listBuiltRuntimes(layout.runtimes)).length > 0;
      return {
        status: made ? "skip" : "warn",
        detail: `${missing.join(", ")} missing: base and Node.js runtimes cannot be made${made ? " anew" : ""}.`,
        fix: `apt-get install ${missing.join(" ")}`,
      };
    },
  },
  {
    name: "daemon",
    run: async ({ layout, daemon }) => {
      const there = await access(layout.socket).then(
        () => true,
        () => false,
      );
      if (!there || daemon === undefined) {
        return { status: "ok", detail: "Not running; the next command starts it." };
      }
      const info = await daemon();
      if (info === undefined) {
        return { status: "ok", detail: "Not running any more; the next command starts it." };
      }
      if (info.version !== packageVersion()) {
        return {
          status: "warn",
          detail: `Version ${info.version} runs (process ${info.pid}), this is ${packageVersion()}.`,
          fix: "vmsan daemon stop; the next command starts the new one, VMs go on running.",
        };
      }
      const { mode } = await stat(layout.socket);
      if ((mode & 0o077) !== 0) {
        return {
          status: "fail",
          detail: "Others can use its socket.",
          fix: `chmod 600 ${layout.socket}`,
        };
      }
      return { status: "ok", detail: `Version ${info.version}, process ${info.pid}.` };
    },
  },
  {
    name: "leftovers",
    run: async ({ layout, signal }) => {
      const remains = await findRemains(layout, signal);
      if (remains.length === 0) {
        const vms = await readdir(layout.vms).catch(() => []); // none made yet
        return {
          status: "ok",
          detail: `None (${vms.filter((name) => name.startsWith("vm-")).length} VMs).`,
        };
      }
      return {
        status: "warn",
        detail: `Left by dead processes: ${remains.map(({ what }) => what).join(", ")}.`,
        fix: "vmsan doctor --fix",
        repair: async () => await removeRemains(layout, remains, signal),
      };
    },
  },
];
