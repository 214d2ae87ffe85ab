/** A key for one browser, and the address that hands it over: behind `#`, which browsers send to nobody. */
import { join } from "node:path";
import { writeFileAtomic } from "../../util/atomic.ts";
import { Keys } from "../access/keys.ts";

/** Names of such keys begin with this. */
const KEY_NAME = "dashboard";

/** Who may look, and for how long. */
export interface HandOver {
  /** Milliseconds until the key is refused. */
  lifetimeMs: number;
  /** A project's VMs alone; absent: everything of the host. */
  project?: string;
}

/** What was made. */
export interface HandedOver {
  /** The dashboard's address with the key in its fragment. */
  link: string;
  /** ID of the key. */
  key: string;
  /** RFC 3339. */
  expiresAt: string;
}

/**
 * Make a key for the dashboard; those of earlier times that have expired go.
 * @param directory absolute, of the gateway's files
 * @param url of the gateway
 */
export async function handOver(
  directory: string,
  url: string,
  wish: HandOver,
): Promise<HandedOver> {
  const keys = new Keys(directory);
  for (const { id, name, expiresAt } of await keys.list()) {
    const over = expiresAt !== undefined && Date.parse(expiresAt) <= Date.now();
    if (name === KEY_NAME && over) await keys.remove(id);
  }
  const { key, text } = await keys.create({
    name: KEY_NAME,
    admin: wish.project === undefined,
    lifetimeMs: wish.lifetimeMs,
    ...(wish.project === undefined ? {} : { project: wish.project }),
  });
  return {
    link: `${url}/ui/#key=vmsan_${text}`,
    key: key.id,
    expiresAt: key.expiresAt ?? "",
  };
}

/**
 * A file that leads a browser to the address: a program's arguments can be read by every user of the host, this
 * file by nobody else.
 * @returns its `file:` address
 */
export async function writeDoor(directory: string, link: string): Promise<string> {
  const path = join(directory, "open.html");
  const page = `<!doctype html><meta charset="utf-8"><title>vmsan</title><meta http-equiv="refresh" content="0;url=${link}"><a href="${link}">The dashboard of vmsan</a>\n`;
  await writeFileAtomic(path, page);
  return new URL(`file://${encodeURI(path)}`).href;
}
