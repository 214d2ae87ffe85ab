/** A container's VM: made with the first use, started again, stopped with its disk kept. */
import type { CreateOptions } from "../../../../client/options.ts";
import type { PlaceOptions } from "../../../../client/private-networks.ts";
import type { Vm } from "../../../../client/vm.ts";
import type { Vmsan } from "../../../../client/vmsan.ts";
import { addLines } from "../../../../containers/lines.ts";
import { withGroups } from "../../../../containers/user.ts";
import { VmsanError } from "../../../../model/errors.ts";
import type { ContainerRecord, HostConfig } from "../../../../schema/docker.ts";
import type { GatewayDriver } from "../../../native/bodies.ts";
import { DockerError } from "../../errors.ts";
import { vmMounts } from "../request/mounts.ts";
import { choosePorts, portWishes, portWord } from "../request/ports.ts";

/** Label of a VM with the ID of its container. */
export const CONTAINER_LABEL = "vmsan.docker.container";

/** How long a guest has to shut down, in milliseconds. */
const HALT_MS = 5_000;

/** How often a start is tried again with other ports. */
const PORT_ATTEMPTS = 3;

/** What a container calls itself. */
export function hostnameOf({ id, config }: ContainerRecord): string {
  return config.Hostname === "" ? id.slice(0, 12) : config.Hostname;
}

/** Names by which a container is found on the networks that users have made. */
export function aliasesOf(record: ContainerRecord, aliases: readonly string[]): string[] {
  // Its first 12 digits are the VM's own name.
  const names = [record.name, ...aliases].filter((name) => name !== record.id.slice(0, 12));
  // Docker takes names that no name server could answer; they are kept, and lead nowhere.
  return [...new Set(names.map((name) => name.toLowerCase()))].filter((name) =>
    HOST_NAME.test(name),
  );
}

const HOST_NAME =
  /^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$/;

/** Networks that are the host's own, and nobody's to join. */
const BUILT_IN = new Set(["bridge", "host", "none"]);

function placesOf(record: ContainerRecord): (PlaceOptions & { network: string })[] {
  return Object.entries(record.networks)
    .filter(([name]) => !BUILT_IN.has(name))
    .map(([network, { aliases, address }]) => ({
      network,
      aliases: aliasesOf(record, aliases),
      ...(address === undefined ? {} : { address }),
    }));
}

/** What it may reach besides its networks: nothing without one that leads out. */
function policyOf(record: ContainerRecord): Pick<CreateOptions, "networkPolicy"> {
  const networks = Object.values(record.networks);
  if (Object.hasOwn(record.networks, "none")) return { networkPolicy: "none" };
  return networks.some(({ internal }) => !internal) ? {} : { networkPolicy: "deny-all" };
}

/** Options of the VM of a container. */
async function vmOptions(
  record: ContainerRecord,
  driver: GatewayDriver,
  cluster: boolean,
): Promise<CreateOptions> {
  const { config, image, id } = record;
  const host = record.hostConfig as HostConfig;
  const sysctls = Object.entries(host.Sysctls ?? {}).map(([key, value]) => `${key}=${value}`);
  if (config.Hostname !== "") sysctls.push(`kernel.hostname=${config.Hostname}`);
  if (config.Domainname !== "") sysctls.push(`kernel.domainname=${config.Domainname}`);
  const size = host.StorageOpt?.["size"];
  const user = withGroups(config.User, host.GroupAdd ?? []);
  return {
    image: image.digest === "" ? image.name : `${image.name}@${image.digest}`,
    // The image that is here is a cluster's host's to fetch.
    pull: cluster ? "missing" : "never",
    name: id.slice(0, 12),
    labels: { [CONTAINER_LABEL]: id, "vmsan.docker.name": record.name },
    driver,
    vcpus: record.vcpus,
    memory: record.memMib,
    env: [`HOSTNAME=${hostnameOf(record)}`, ...record.env],
    ...(user === "" ? {} : { user }),
    ...(config.WorkingDir === "" ? {} : { workdir: config.WorkingDir }),
    ports: record.ports.map(portWord),
    mounts: await vmMounts(record),
    sysctls,
    ...(size === undefined ? {} : { disk: size }),
    networks: placesOf(record),
    ...policyOf(record),
  };
}

/** Whether a VM could not be made or started since something listens on a port. */
function isPortTaken(error: unknown): boolean {
  return error instanceof VmsanError && error.code === "ERR_VALIDATION_PORT_CONFLICT";
}

/** As the engine says it: clients look for its last words. */
function startError(error: unknown, record: ContainerRecord): unknown {
  const said = error instanceof VmsanError ? error.message : "";
  if (error instanceof VmsanError && error.code === "ERR_PRIVATE_NETWORK_NOT_FOUND") {
    const name = placesOf(record).find(({ network }) => said.split(" ").includes(network))?.network;
    return new DockerError(404, `network ${name ?? ""} not found`, error);
  }
  if (!isPortTaken(error)) return error;
  return new DockerError(
    500,
    `driver failed programming external connectivity on endpoint ${record.name}: ${said}: port is already allocated`,
    error,
  );
}

/** Make the VM of a container; its ports are chosen now. */
async function makeVm(vmsan: Vmsan, record: ContainerRecord, driver: GatewayDriver): Promise<Vm> {
  const wishes = portWishes(record.hostConfig, record.config);
  const open = wishes.some(({ from, to }) => from === undefined || from !== to);
  for (let attempt = 1; ; attempt += 1) {
    record.ports = await choosePorts(wishes);
    try {
      return await vmsan.create(await vmOptions(record, driver, vmsan.cluster));
    } catch (error) {
      // One that was free a moment ago may not be any more.
      if (isPortTaken(error) && open && attempt < PORT_ATTEMPTS) continue;
      record.ports = [];
      throw startError(error, record);
    }
  }
}

/** Lines of /etc/hosts with a name of its user's own choice; the VM's own name is there already. */
function ownHost({ config }: ContainerRecord, { guestNetwork, networks }: Vm["view"]): string[] {
  const { Hostname: name, Domainname: domain } = config;
  if (name === "") return [];
  const address = networks[0]?.address ?? guestNetwork?.ipv4?.split("/", 1)[0] ?? "127.0.1.1";
  const names = domain === "" ? [name] : [`${name}.${domain}`, name];
  return [`${address}\t${names.join(" ")}`];
}

/** Lines of /etc/hosts that a container is to have besides its own. */
function extraHosts(record: ContainerRecord, gateway: string | undefined): string[] {
  const { ExtraHosts: extra } = record.hostConfig as HostConfig;
  return (extra ?? []).flatMap((entry) => {
    const [, name = "", address = ""] = /^([^:=]+)[:=](.+)$/.exec(entry) ?? [];
    const where = address === "host-gateway" ? gateway : address.replace(/^\[|\]$/g, "");
    return name === "" || where === undefined || where === "" ? [] : [`${where}\t${name}`];
  });
}

/** Lines of /etc/resolv.conf besides those of the network's own server. A dot alone: no domains are tried. */
function resolverLines(record: ContainerRecord): string[] {
  const { DnsSearch: search, DnsOptions: options } = record.hostConfig as HostConfig;
  const line = (word: string, words: readonly string[]): string[] =>
    words.length === 0 ? [] : [`${word} ${words.join(" ")}`];
  return [...line("search", search ?? []), ...line("options", options ?? [])];
}

/** Have lines at the end of a file; one of the user's own stays as it is. */
async function addOwnLines(
  vm: Vm,
  { mounts }: ContainerRecord,
  path: string,
  lines: readonly string[],
): Promise<void> {
  if (!mounts.some(({ Destination }) => Destination === path)) await addLines(vm, path, lines);
}

/** Give a guest that has come up what is not part of its VM, and what it has not been given yet. */
async function furnish(vm: Vm, record: ContainerRecord): Promise<void> {
  const gateway = vm.view.guestNetwork?.gateway4;
  const hosts = [...ownHost(record, vm.view), ...extraHosts(record, gateway)];
  await addOwnLines(vm, record, "/etc/hosts", hosts);
  await addOwnLines(vm, record, "/etc/resolv.conf", resolverLines(record));
  const { ReadonlyRootfs: readonly, Ulimits: limits } = record.hostConfig as HostConfig;
  if (readonly === true) await vm.sealRoot();
  if (limits && limits.length > 0) {
    await vm.setLimits(
      limits.map(({ Name, Soft, Hard }) => ({ name: Name, soft: Soft, hard: Hard })),
    );
  }
}

/** A container's VM, running: made, started or woken as needed. */
export async function runningVm(
  vmsan: Vmsan,
  record: ContainerRecord,
  driver: GatewayDriver,
): Promise<Vm> {
  if (record.vm === undefined) {
    const vm = await makeVm(vmsan, record, driver);
    record.vm = vm.id;
    await furnish(vm, record);
    return vm;
  }
  const vm = await vmsan.get(record.vm);
  const { status } = vm.view;
  const asleep = status === "paused" || status === "suspended";
  if (asleep) await vm.resume();
  try {
    // Also one that runs: a gateway may have been killed before it came so far.
    await placeAgain(vmsan, vm, record);
    if (!asleep && status !== "running") await vm.start();
  } catch (error) {
    throw startError(error, record);
  }
  await furnish(vm, record);
  return vm;
}

/** Have a container's VM on the networks of its record: a gateway may have been killed while it was moved. */
export async function placeAgain(vmsan: Vmsan, vm: Vm, record: ContainerRecord): Promise<void> {
  const missing = placesOf(record).filter(
    ({ network }) => !vm.view.networks.some((one) => one.network === network),
  );
  for (const { network, ...place } of missing) await vmsan.networks.connect(network, vm.id, place);
  if (missing.length > 0) await vm.refresh();
}

/** Have a container's VM answer to its record's name on its networks, at the addresses that it has. */
export async function answerToName(vmsan: Vmsan, record: ContainerRecord): Promise<void> {
  const { vm: id } = record;
  const places = id === undefined ? [] : placesOf(record);
  if (id === undefined || places.length === 0) return;
  const { view } = await vmsan.get(id);
  for (const { network, ...place } of places) {
    const address = view.networks.find((one) => one.network === network)?.address;
    // Its names there are those that it came with: it comes once more.
    await vmsan.networks.disconnect(network, id);
    await vmsan.networks.connect(network, id, {
      ...place,
      ...(address === undefined ? {} : { address }),
    });
  }
}

/** Stop a container's VM, if it runs; its disk stays. */
export async function haltVm(
  vmsan: Vmsan,
  record: ContainerRecord,
  graceMs = HALT_MS,
): Promise<void> {
  if (record.vm === undefined) return;
  try {
    await vmsan.stop(record.vm, graceMs);
  } catch (error) {
    const code = error instanceof VmsanError ? error.code : "";
    if (code !== "ERR_VM_NOT_FOUND" && code !== "ERR_VM_NOT_RUNNING") throw error;
  }
}
