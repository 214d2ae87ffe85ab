/** The processes below a process. */
import { readFileSync, readdirSync } from "node:fs";
import type { ProcessIdentity } from "../../model/vm.ts";
import { identityOf } from "../../util/process-identity.ts";

/** Parent of a process; undefined when it is gone. */
function parentOf(pid: number): number | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    return Number(text.slice(text.lastIndexOf(")") + 2).split(" ")[1]);
  } catch {
    // ENOENT or ESRCH: it has ended.
    return undefined;
  }
}

/** All live processes whose ancestor is `root`, as of now; zombies are left out. */
export function descendantsOf(root: number): ProcessIdentity[] {
  const children = new Map<number, number[]>();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const parent = parentOf(Number(name));
    if (parent !== undefined) children.set(parent, [...(children.get(parent) ?? []), Number(name)]);
  }
  const found: ProcessIdentity[] = [];
  const queue = [...(children.get(root) ?? [])];
  for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
    const identity = identityOf(pid);
    if (identity !== undefined) found.push(identity);
    queue.push(...(children.get(pid) ?? []));
  }
  return found;
}
