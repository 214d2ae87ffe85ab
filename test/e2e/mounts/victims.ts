/** What serves a VM's mounts, to be killed. */
import { join } from "node:path";
import type { Vm } from "../../../src/client/vm.ts";
import { layoutOf } from "../../../src/util/paths.ts";
import { identityOf } from "../../../src/util/process-identity.ts";
import { killAndWait } from "../../../src/vmm/exit.ts";
import { findLeftovers } from "../../../src/vmm/leftovers.ts";
import type { Installation } from "../../fixtures/ladder.ts";

/** Kill a process and wait for its end: until then its VM would be said to run. */
async function kill(pid: number | undefined): Promise<void> {
  const identity = pid === undefined ? undefined : identityOf(pid);
  if (identity !== undefined) await killAndWait(identity);
}

/** Ways to kill, by what is killed; one that does not run is passed over. */
export function victimsOf(here: Installation, vm: Vm): Record<string, () => Promise<void>> {
  const dir = join(layoutOf(here.dir).vms, vm.id);
  return {
    daemon: async () => await kill((await here.vmsan.daemon.info())?.pid),
    vmm: async () => await kill((await vm.refresh()).pid),
    "file server": async () => await kill((await findLeftovers(dir, "shares.json"))[0]?.pid),
  };
}
