/** The processes below a process. */
import { readFileSync, readdirSync } from "node:fs";
import type { ProcessIdentity } from "../../model/vm.ts";
import { identityOf } from "../../util/process-identity.ts";

/** What a file or directory of /proc holds; nothing for a process that has ended. */
function read<T>(look: () => T[]): T[] {
  try {
    return look();
  } catch {
    // ENOENT or ESRCH: it has ended.
    return [];
  }
}

/** The children of a process: each of its threads has those that it has started. */
function childrenOf(pid: number): number[] {
  return read(() => readdirSync(`/proc/${pid}/task`)).flatMap((thread) =>
    read(() => readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8").split(" "))
      .filter((word) => word !== "")
      .map(Number),
  );
}

/**
 * All live processes whose ancestor is `root`, as of now; zombies are left out. Only they are looked at: a host of
 * thousands of processes would take long to look through, for each VM that ends.
 */
export function descendantsOf(root: number): ProcessIdentity[] {
  const found: ProcessIdentity[] = [];
  const queue = childrenOf(root);
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    const identity = identityOf(pid);
    if (identity !== undefined) found.push(identity);
    queue.push(...childrenOf(pid));
  }
  return found;
}
