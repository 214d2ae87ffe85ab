/** `vmsan key`: API keys of `vmsan serve`. */
import type { Command } from "commander";
import type { KeyLimits } from "../../model/gateway.ts";
import { parseDiskSize, parseDuration, parseInteger, parseMemory } from "../../util/units.ts";
import { command, runs } from "../command.ts";
import { plain, table } from "../output.ts";

interface CreateFlags {
  name?: string;
  project?: string;
  admin?: boolean;
  expires?: string;
  maxVms?: string;
  maxMemory?: string;
  maxDisk?: string;
  maxRate?: string;
}

async function keys() {
  const { Keys } = await import("../../gateway/access/keys.ts");
  const { layoutOf, vmsanDir } = await import("../../util/paths.ts");
  return new Keys(layoutOf(vmsanDir()).gateway);
}

/** How long a key lives, in milliseconds: also in days, which are more than a timer takes. */
export function parseLifetime(text: string): number {
  const days = /^(\d{1,4})d$/.exec(text)?.[1];
  return days === undefined
    ? parseDuration(text)
    : parseInteger("expires", days, 1, 9999) * 86_400_000;
}

function limitsOf(flags: CreateFlags): KeyLimits {
  const { maxVms, maxMemory, maxDisk, maxRate } = flags;
  return {
    ...(maxVms === undefined ? {} : { vms: parseInteger("max-vms", maxVms, 0, 100_000) }),
    ...(maxMemory === undefined
      ? {}
      : { memMib: parseMemory(maxMemory, 0, 2 ** 31, "--max-memory") }),
    ...(maxDisk === undefined
      ? {}
      : { diskBytes: parseDiskSize(maxDisk, 0, 2 ** 20, "--max-disk") }),
    ...(maxRate === undefined
      ? {}
      : { requestsPerSecond: parseInteger("max-rate", maxRate, 1, 100_000) }),
  };
}

/** The definition. */
export function keyCommand(): Command {
  const target = command("key", "API keys of `vmsan serve`");
  const create = runs<CreateFlags>(
    command("create", "make a key; its text is shown this once")
      .option("--name <name>", "for people")
      .option("--project <name>", "whose VMs it sees and makes (default)")
      .option("--admin", "sees all projects")
      .option("--expires <duration>", "refused after that: 30m, 12h, 30d")
      .option("--max-vms <n>", "VMs at once")
      .option("--max-memory <size>", "memory of all its VMs: 4g, or MiB")
      .option("--max-disk <size>", "disks of all its VMs: 100gb, or GiB")
      .option("--max-rate <n>", "requests a second"),
    async ({ flags, output }) => {
      const { name, project, admin, expires } = flags;
      const { key, text } = await (
        await keys()
      ).create({
        ...(name === undefined ? {} : { name }),
        ...(project === undefined ? {} : { project }),
        admin: admin === true,
        ...(expires === undefined ? {} : { lifetimeMs: parseLifetime(expires) }),
        limits: limitsOf(flags),
      });
      output.result({ ...key, key: `vmsan_${text}` }, `vmsan_${text}`);
    },
  );
  const list = runs(command("list", "list keys").alias("ls"), async ({ output }) => {
    const all = await (await keys()).list();
    const rows = all.map((key) => [
      key.id,
      plain(key.name),
      plain(key.project),
      key.admin ? "admin" : "project",
      key.createdAt,
      key.expiresAt ?? "-",
    ]);
    output.result(
      { keys: all },
      table([["ID", "NAME", "PROJECT", "SCOPE", "CREATED", "EXPIRES"], ...rows]),
    );
  });
  const remove = runs(
    command("remove <key>", "take a key away; it is refused from now on").aliases(["rm", "delete"]),
    async ({ output }, ref: string) => {
      const key = await (await keys()).remove(ref);
      output.result({ removed: key.id }, key.id);
    },
  );
  for (const child of [create, list, remove]) target.addCommand(child);
  return target;
}
