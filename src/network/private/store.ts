/** Which private networks there are: a document each, read once, replaced as a whole. */
import { readFileSync, readdirSync, rmSync } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { PrivateNetworkRecord, PrivateNetworkRequest } from "../../model/private-network.ts";
import { ASIDE, writeFileAtomic } from "../../util/atomic.ts";
import { parseNetworkName } from "../../util/names.ts";
import { parseCidr } from "../policy/cidr.ts";
import { checkSubnet, freeSubnet } from "./subnets.ts";

/** No network has that name. */
function networkNotFound(name: string): VmsanError {
  return new VmsanError({
    code: "ERR_PRIVATE_NETWORK_NOT_FOUND",
    message: `No private network ${name}`,
    why: "No network has that name.",
    fix: `\`vmsan network ls\` lists all; \`vmsan network create ${name}\` makes it.`,
  });
}

/** A stored network, checked; throws what is wrong with it. */
function readRecord(text: string, name: string): PrivateNetworkRecord {
  const value = JSON.parse(text) as Partial<PrivateNetworkRecord> | null;
  const { createdAt, project, labels, subnet } = value ?? {};
  if (
    value?.schema !== 1 ||
    value.name !== name ||
    typeof createdAt !== "string" ||
    typeof project !== "string" ||
    typeof labels !== "object" ||
    !Object.values(labels).every((label) => typeof label === "string") ||
    typeof subnet !== "string" ||
    parseCidr(subnet)?.family !== 4
  ) {
    throw new Error("It is no record of a private network.");
  }
  return { schema: 1, name, createdAt, project, labels, subnet };
}

/** The private networks of one VMSAN_DIR. */
export class PrivateNetworkStore {
  private readonly dir: string;
  private readonly records = new Map<string, PrivateNetworkRecord>();
  /** Networks whose documents cannot be read, and why. */
  readonly damaged = new Map<string, string>();
  /** Being made. */
  private readonly coming = new Set<string>();

  /** @param dir absolute path of the directory of documents */
  constructor(dir: string) {
    this.dir = dir;
    for (const file of this.files()) {
      // A write that its process did not live to finish.
      if (file.startsWith(ASIDE)) rmSync(join(dir, file), { force: true });
      else this.read(file);
    }
  }

  private files(): string[] {
    try {
      return readdirSync(this.dir);
    } catch (error) {
      if (errnoOf(error) === "ENOENT") return [];
      throw error;
    }
  }

  private read(file: string): void {
    const name = file.replace(/\.json$/, "");
    try {
      parseNetworkName(name);
      this.records.set(name, readRecord(readFileSync(join(this.dir, file), "utf8"), name));
    } catch (error) {
      this.damaged.set(name, messageOf(error));
    }
  }

  /** All networks by name. */
  list(): PrivateNetworkRecord[] {
    return [...this.records.values()].toSorted((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** One network. @throws ERR_PRIVATE_NETWORK_NOT_FOUND, ERR_PRIVATE_NETWORK_DAMAGED */
  get(name: string): PrivateNetworkRecord {
    const record = this.records.get(parseNetworkName(name));
    if (record !== undefined && !this.coming.has(name)) return record;
    const why = this.damaged.get(name);
    if (why === undefined) throw networkNotFound(name);
    throw new VmsanError({
      code: "ERR_PRIVATE_NETWORK_DAMAGED",
      message: `Cannot use the private network ${name}`,
      why,
      fix: `Put ${join(this.dir, `${name}.json`)} back from a backup, or remove the network: vmsan network rm ${name}`,
    });
  }

  /** Make a network. @throws ERR_PRIVATE_NETWORK_NAME_TAKEN, ERR_PRIVATE_NETWORK_SUBNET */
  async create(request: PrivateNetworkRequest): Promise<PrivateNetworkRecord> {
    const { project, labels } = request;
    const name = parseNetworkName(request.name);
    if (this.records.has(name) || this.damaged.has(name)) {
      throw new VmsanError({
        code: "ERR_PRIVATE_NETWORK_NAME_TAKEN",
        message: `Cannot make a private network ${name}`,
        why: "There is one of that name.",
        fix: `Choose another name, or remove it: vmsan network rm ${name}`,
      });
    }
    const others = [...this.records.values()].map(({ subnet }) => subnet);
    const subnet =
      request.subnet === undefined ? freeSubnet(others) : checkSubnet(request.subnet, others);
    const createdAt = new Date().toISOString();
    const record: PrivateNetworkRecord = { schema: 1, name, createdAt, project, labels, subnet };
    // Name and range are taken from here on, and free again should it fail.
    this.records.set(name, record);
    this.coming.add(name);
    try {
      await mkdir(this.dir, { recursive: true, mode: 0o700 });
      await writeFileAtomic(join(this.dir, `${name}.json`), `${JSON.stringify(record, null, 2)}\n`);
    } catch (error) {
      this.records.delete(name);
      throw error;
    } finally {
      this.coming.delete(name);
    }
    return record;
  }

  /** Remove a network, in which nobody may be. From the moment of the call nobody can join it. */
  async remove(name: string): Promise<void> {
    const record = this.records.get(parseNetworkName(name));
    if (record === undefined && !this.damaged.has(name)) throw networkNotFound(name);
    this.records.delete(name);
    try {
      await rm(join(this.dir, `${name}.json`), { force: true });
      this.damaged.delete(name);
    } catch (error) {
      if (record !== undefined) this.records.set(name, record);
      throw error;
    }
  }
}
