/** The shared directories of VMs, as the composer uses them. */
import { realpath } from "node:fs/promises";
import { VmsanError } from "../model/errors.ts";
import type { VmRecord } from "../model/vm.ts";
import { FileServers } from "../shares/file-server.ts";
import type { Directory } from "../shares/file-server.ts";
import { checkSources } from "../shares/sources.ts";
import type { Layout } from "../util/paths.ts";
import type { VolumeStore } from "../volumes/store.ts";
import type { EventLog } from "./records/entry.ts";
import type { Shares } from "./stages.ts";
import { servedOf } from "./starting/mounts.ts";

/** {@link Shares} of this host. */
export function createShares(layout: Layout, volumes: VolumeStore, log: EventLog): Shares {
  const servers = new FileServers(layout.root, (line) => log.error(line));
  return {
    check: async (mounts) => await checkSources(mounts, await realpath(layout.root)),
    serve: async (record, running, token) => {
      const { id, spec } = record;
      const served = await directories(record, volumes);
      if (served.length === 0) return;
      if (running.fileServerPort === undefined) throw noPort(record);
      const { fileServerPort: port, process: vmm } = running;
      await servers.serve({ id, dir: spec.dir, served, port, token, vmm });
    },
    end: async (record) => {
      if (servedOf(record).length > 0) await servers.end(record.id, record.spec.dir);
    },
    known: (record) => (servedOf(record).length > 0 ? servers.known(record.spec.dir) : undefined),
    takeUp: async ({ spec }, from) => await servers.takeUp(spec.dir, from),
  };
}

/** What a VM's file server serves, in the order in which its guest mounts it. */
async function directories(record: VmRecord, volumes: VolumeStore): Promise<Directory[]> {
  const all: Directory[] = [];
  for (const mount of servedOf(record)) {
    const { readonly, file = false } = mount;
    if (mount.kind === "bind") {
      all.push({ source: mount.source, readonly, file, volume: false });
      continue;
    }
    const source = await volumes.directory(mount.name, readonly);
    const limit = await volumes.limit(mount.name);
    const part = mount.part === undefined ? {} : { part: mount.part };
    all.push({ source, readonly, file, volume: true, limit, ...part });
  }
  return all;
}

/** Its driver gives guests no way to a file server. */
function noPort({ id, driver }: VmRecord): VmsanError {
  return new VmsanError({
    code: "ERR_DRIVER_UNSUPPORTED",
    message: `Cannot share directories with ${id}`,
    why: `The driver ${driver} has no port for them.`,
    fix: "Use --driver qemu or firecracker.",
  });
}
