/** `vmsan mcp`: sandboxes for agents, on standard input and output. */
import { resolve } from "node:path";
import { Option } from "commander";
import type { Command } from "commander";
import { command, interruptSignal, runs } from "../../command.ts";

interface McpFlags {
  policy?: string;
  project?: string;
  driver?: "auto" | "firecracker" | "qemu" | "fake";
}

interface InstallFlags {
  policy?: string;
  write?: boolean;
}

/** `mcp install`. */
function installCommand(): Command {
  const target = command("install [client]", "how a client is told of this server")
    .option("--policy <file>", "what agents may ask for")
    .option("--write", "write it into the client's own file, instead of printing it");
  return runs<InstallFlags>(target, async ({ flags, output }, name?: string) => {
    const { CLIENTS, clientOf, configurationFor, writeConfiguration } =
      await import("../../../mcp/install.ts");
    const { commandPath } = await import("../../../util/package.ts");
    const policy = flags.policy === undefined ? [] : ["--policy", resolve(flags.policy)];
    const { VMSAN_DIR, VMSAN_URL } = process.env;
    const env = {
      ...(VMSAN_DIR === undefined ? {} : { VMSAN_DIR: resolve(VMSAN_DIR) }),
      ...(VMSAN_URL === undefined || VMSAN_URL === "" ? {} : { VMSAN_URL }),
    };
    const server = {
      command: commandPath(),
      args: ["mcp", ...policy],
      env,
    };
    if (env.VMSAN_URL !== undefined) {
      output.note(
        "VMSAN_KEY is not written: have it in the client's environment, or add it there.",
      );
    }
    if (flags.write === true) {
      const path = await writeConfiguration(clientOf(name ?? ""), server);
      output.result({ path }, `written to ${path}`);
      return;
    }
    const clients = name === undefined ? Object.values(CLIENTS) : [clientOf(name)];
    const parts = clients.map((client) => {
      const place = client.file === undefined ? "" : `, in ~/${client.file}`;
      const text = configurationFor(client, server);
      return name === undefined ? `# ${client.title}${place}\n${text}` : text;
    });
    output.result({ server, clients: Object.keys(CLIENTS) }, parts.join("\n\n"));
  });
}

/** The definition. */
export function mcpCommand(): Command {
  const target = command(
    "mcp",
    "sandboxes for agents (Model Context Protocol), on stdin and stdout",
  )
    .option("--policy <file>", "what agents may ask for (docs/mcp.md)")
    .option("--project <name>", "project of the sandboxes")
    .addOption(
      new Option("--driver <driver>", "of the sandboxes").choices([
        "auto",
        "firecracker",
        "qemu",
        "fake",
      ]),
    );
  runs<McpFlags>(target, async ({ flags, output, vmsan }) => {
    const { policy, project, driver } = flags;
    const interrupt = interruptSignal();
    const { loadPolicy } = await import("../../../mcp/policy.ts");
    const { serveOnStdio } = await import("../../../mcp/stdio.ts");
    await serveOnStdio({
      vmsan: await vmsan(),
      policy: await loadPolicy(policy),
      ...(project === undefined ? {} : { project }),
      ...(driver === undefined ? {} : { driver }),
      signal: interrupt.signal,
      log: (message) => output.note(message),
    });
    interrupt.dispose();
  });
  target.enablePositionalOptions().addCommand(installCommand());
  return target;
}
