/** Tools that make, list, fork, save and remove sandboxes. */
import type { McpServer } from "@modelcontextprotocol/server";
import * as z from "zod";
import type { Vm } from "../../client/vm.ts";
import { allowedImage, allowedNetwork, within } from "../policy.ts";
import type { Session } from "../session.ts";
import { addTool, sandboxRef } from "./tool.ts";

const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/)
  .optional()
  .describe("short name, unique on the host");

/** A sandbox as agents are told of it. */
function shown({ id, view }: Vm): Record<string, unknown> {
  return {
    sandbox: id,
    ...(view.name === undefined ? {} : { name: view.name }),
    status: view.status,
    image: view.image?.name ?? view.runtime,
    memory_mib: view.memMib,
    vcpus: view.vcpus,
    network: view.policy.mode,
    ...(view.policy.mode === "custom" ? { domains: view.policy.allowedDomains } : {}),
    ...(view.timeoutAt === undefined ? {} : { ends_at: view.timeoutAt }),
  };
}

/** Add them. */
export function addSandboxTools(server: McpServer, session: Session): void {
  const { policy } = session;
  const limits = `At most ${policy.maxSandboxes} at a time, each with at most ${policy.maxMemoryMib} MiB, ${policy.maxVcpus} processors and ${policy.maxDiskGib} GiB.`;

  addTool(
    server,
    session,
    "create_sandbox",
    {
      title: "Create a sandbox",
      description: `Start a new isolated Linux virtual machine of a container image and return its ID. Commands run in it as on a computer of their own; nothing of this host can be reached. Images: ${policy.images.join(", ")}. ${limits} Network modes: ${policy.networkModes.join(", ")} (the first is the default). It is removed when the session ends.`,
      input: z.object({
        image: z.string().max(1000).optional().describe("container image, e.g. python:3.13"),
        name,
        memory_mib: z.int().min(64).optional().describe("default 512"),
        vcpus: z.int().min(1).optional().describe("default 1"),
        disk_gib: z.int().min(1).optional().describe("room for its own files"),
        network: z
          .enum(["none", "deny-all", "custom", "allow-all"])
          .optional()
          .describe("what it may reach; custom: only the domains given"),
        domains: z
          .array(z.string().max(255))
          .max(100)
          .optional()
          .describe("for custom: *.example.com"),
        env: z.record(z.string(), z.string()).optional().describe("variables of all commands"),
      }),
    },
    async (input, work) => {
      const memMib = within("MiB of memory", input.memory_mib ?? 512, policy.maxMemoryMib);
      const vcpus = within("processors", input.vcpus ?? 1, policy.maxVcpus);
      const disk = within("GiB of disk", input.disk_gib ?? policy.maxDiskGib, policy.maxDiskGib);
      const vm = await session.create(
        {
          image: allowedImage(policy, input.image),
          ...allowedNetwork(policy, { mode: input.network, domains: input.domains }),
          ...(input.name === undefined ? {} : { name: input.name }),
          memory: memMib,
          vcpus,
          disk,
          env: Object.entries(input.env ?? {}).map(([key, value]) => `${key}=${value}`),
          memMib,
          diskSizeBytes: disk * 2 ** 30,
        },
        work,
      );
      return { values: shown(vm) };
    },
  );

  addTool(
    server,
    session,
    "list_sandboxes",
    {
      title: "List sandboxes",
      description: "The sandboxes of this session, and whether they run.",
      input: z.object({}),
      readOnly: true,
    },
    async () => ({ values: { sandboxes: (await session.list()).map(shown) } }),
  );

  addTool(
    server,
    session,
    "fork_sandbox",
    {
      title: "Fork a sandbox",
      description:
        "Make copies of a running sandbox that go on where it is, with its memory, files and processes; it goes on too. To try several ways from one state.",
      input: z.object({ sandbox: sandboxRef, count: z.int().min(1).max(32).default(1) }),
    },
    async ({ sandbox, count }, work) => {
      const vms = await session.fork(session.sandbox(sandbox), count, work);
      return { values: { sandboxes: vms.map(shown) } };
    },
  );

  addTool(
    server,
    session,
    "snapshot_sandbox",
    {
      title: "Save a sandbox's state",
      description:
        "Save the memory and files of a running sandbox, to go back to with rollback_sandbox. It goes on meanwhile.",
      input: z.object({ sandbox: sandboxRef, name }),
    },
    async ({ sandbox, name: given }, work) => {
      const view = await session.snapshot(session.sandbox(sandbox), given, work);
      return { values: { snapshot: view.id, ...(given === undefined ? {} : { name: given }) } };
    },
  );

  addTool(
    server,
    session,
    "rollback_sandbox",
    {
      title: "Go back to a saved state",
      description:
        "Take a sandbox back to a snapshot of it: memory, files and processes are as they were. What happened since is lost.",
      input: z.object({ sandbox: sandboxRef, snapshot: z.string().min(1).max(63) }),
      destructive: true,
    },
    async ({ sandbox, snapshot }, work) => {
      const vm = session.sandbox(sandbox);
      await session.rollBack(vm, snapshot, work);
      return { values: shown(vm) };
    },
  );

  addTool(
    server,
    session,
    "destroy_sandbox",
    {
      title: "Remove a sandbox",
      description: "Remove a sandbox with its files.",
      input: z.object({ sandbox: sandboxRef }),
      destructive: true,
    },
    async ({ sandbox }) => {
      const vm = session.sandbox(sandbox);
      await session.destroy(vm);
      return { text: `${vm.id} is removed.` };
    },
  );
}
