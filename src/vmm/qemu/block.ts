/** Disks of a running QEMU: another layer on top of one, or more room. */
import { VmsanError } from "../../model/errors.ts";
import { blockDevice, layerNode } from "./command.ts";
import type { Qmp } from "./qmp.ts";

/** The fields that matter of an entry of query-block. */
interface BlockEntry {
  qdev?: string;
  inserted?: { "node-name"?: string };
}

/** Name of the node that a disk writes to now. */
async function topNode(monitor: Qmp, index: number): Promise<string> {
  const reply = await monitor.execute("query-block");
  const entries = Array.isArray(reply) ? (reply as BlockEntry[]) : [];
  const name = blockDevice(index);
  const found = entries.find(({ qdev }) => qdev?.split("/").includes(name));
  const node = found?.inserted?.["node-name"];
  if (node !== undefined) return node;
  throw new VmsanError({
    code: "ERR_VMM_DISKS",
    message: `Cannot change disk ${index}`,
    why: "QEMU knows no such disk.",
    fix: "Stop and start the VM.",
  });
}

/**
 * Have a disk write to another file from now on; nothing is done where it does already.
 * @param path an empty QCOW2 file, as QEMU sees it
 */
export async function addLayer(monitor: Qmp, index: number, path: string): Promise<void> {
  const top = await topNode(monitor, index);
  const node = layerNode(index, path);
  if (top === node) return;
  await monitor.execute("blockdev-add", {
    driver: "qcow2",
    "node-name": node,
    discard: "unmap",
    file: { driver: "file", filename: path },
    backing: null,
  });
  await monitor.execute("blockdev-snapshot", { node: top, overlay: node });
}

/** Make a disk larger. */
export async function growDisk(monitor: Qmp, index: number, sizeBytes: number): Promise<void> {
  await monitor.execute("block_resize", {
    "node-name": await topNode(monitor, index),
    size: sizeBytes,
  });
}
