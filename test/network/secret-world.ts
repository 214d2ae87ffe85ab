/** A world with the servers of secret-server.ts on its internet, for scripts of this folder. */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { issue, makeAuthority } from "../../src/network/secrets/authority.ts";
import type { NetworkOptions } from "../../src/network/types.ts";
import { World, name } from "./world.ts";

/** Such a world. */
export interface SecretWorld {
  world: World;
  /** Certificate of the authority that the servers' are signed by. */
  caFile: string;
  /** End all of it; the namespaces go with this process. */
  end: () => Promise<void>;
}

/**
 * Make it; names are asked of this namespace's 127.0.0.1 from then on.
 * @param job paths, and whether the servers are to have packages
 * @param told is given what a server was asked
 */
export async function secretWorld(
  job: { nettool: string; helper: string; dir: string; packages?: boolean },
  told: (seen: unknown) => void,
  secrets?: NetworkOptions["secrets"],
): Promise<SecretWorld> {
  name("api.test", ["203.0.113.10"]);
  name("other.test", ["203.0.113.20"]);
  const own = secrets === undefined ? {} : { secrets };
  const world = new World({ ...job, ...own, upstreamPort: 53, bare: true });
  await world.start();
  const resolv = join(job.dir, "resolv.conf");
  writeFileSync(resolv, "nameserver 127.0.0.1\n");
  execFileSync("mount", ["--bind", resolv, "/etc/resolv.conf"]);

  const servers = join(job.dir, "servers");
  mkdirSync(servers);
  const domains = ["api.test", "other.test"].map((host) => ({
    scheme: "https" as const,
    host,
    port: 443,
  }));
  const authority = await makeAuthority(job.helper, "the world", [
    { name: "X", places: [], domains },
  ]);
  const caFile = join(servers, "ca.pem");
  writeFileSync(caFile, authority.certificate);
  for (const { host } of domains) {
    const { certificate, key } = await issue(job.helper, authority, host);
    writeFileSync(join(servers, `${host}.pem`), certificate);
    writeFileSync(join(servers, `${host}.key`), key);
  }
  const script = join(import.meta.dirname, "secret-server.ts");
  const inside = ["netns", "exec", "internet", process.execPath, script, servers];
  if (job.packages === true) inside.push("packages");
  const server = spawn("ip", inside, { stdio: ["ignore", "pipe", "inherit"] });
  const lines = createInterface({ input: server.stdout });
  await once(lines, "line");
  lines.on("line", (line) => told(JSON.parse(line)));
  return {
    world,
    caFile,
    end: async () => {
      await world.stop();
      server.kill("SIGKILL");
    },
  };
}
