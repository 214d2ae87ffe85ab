/** Containers as clients see them: in full, and as one of a list. */
import type { ContainerRecord, HostConfig } from "../../../schema/docker.ts";
import { argvOf } from "./request/config.ts";
import { hostnameOf } from "./life/guest.ts";
import { NEVER } from "./life/life.ts";
import type { Container } from "./container.ts";
import { networkModeOf } from "./request/host-config.ts";

/** How long ago, in the words of `docker ps`. @param ms milliseconds */
export function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  const hours = Math.round(minutes / 60);
  if (seconds < 1) return "Less than a second";
  if (seconds === 1) return "1 second";
  if (seconds < 60) return `${seconds} seconds`;
  if (minutes === 1) return "About a minute";
  if (minutes < 60) return `${minutes} minutes`;
  if (hours === 1) return "About an hour";
  if (hours < 48) return `${hours} hours`;
  if (hours < 24 * 14) return `${Math.floor(hours / 24)} days`;
  if (hours < 24 * 60) return `${Math.floor(hours / 24 / 7)} weeks`;
  if (hours < 24 * 365 * 2) return `${Math.floor(hours / 24 / 30)} months`;
  return `${Math.floor(hours / 24 / 365)} years`;
}

/** `Up 5 minutes (healthy)`, `Exited (0) 3 seconds ago`, `Created`. */
function statusText(container: Container): string {
  const { record, status } = container;
  const { state } = record;
  const since = (text: string): string => humanDuration(Date.now() - Date.parse(text));
  switch (status) {
    case "created":
      return "Created";
    case "restarting":
      return `Restarting (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case "dead":
      return "Dead";
    case "exited":
      return state.finishedAt === NEVER
        ? "Created"
        : `Exited (${state.exitCode}) ${since(state.finishedAt)} ago`;
    case "running":
    case "paused": {
      const health = container.health.state;
      const said =
        health === undefined
          ? ""
          : health.Status === "starting"
            ? " (health: starting)"
            : ` (${health.Status})`;
      return `Up ${since(state.startedAt)}${status === "paused" ? " (Paused)" : said}`;
    }
  }
}

type Place = ContainerRecord["networks"][string];

/** One network of a container. */
function endpointOf(
  container: Container,
  name: string,
  { aliases, id, address: wished, driverOpts }: Place,
): object {
  const { running, vmView, record } = container;
  const network = running ? vmView?.guestNetwork : undefined;
  const member = running ? vmView?.networks.find((one) => one.network === name) : undefined;
  const own = name === "bridge";
  const given = aliases.filter((alias) => alias !== record.id.slice(0, 12));
  const [address = "", prefix = "0"] =
    member === undefined
      ? (own ? (network?.ipv4 ?? "") : "").split("/")
      : [member.address, member.subnet.split("/")[1]];
  const [address6 = "", prefix6 = "0"] = (own ? (network?.ipv6 ?? "") : "").split("/");
  return {
    IPAMConfig: wished === undefined ? null : { IPv4Address: wished },
    Links: null,
    // Without the digits of its ID, since 1.45 of the API.
    Aliases: given.length === 0 ? null : given,
    MacAddress: network?.mac ?? "",
    DriverOpts: driverOpts ?? null,
    NetworkID: id,
    EndpointID: running ? record.id : "",
    Gateway: own ? (network?.gateway4 ?? "") : "",
    IPAddress: address,
    IPPrefixLen: Number(prefix),
    IPv6Gateway: own ? (network?.gateway6 ?? "") : "",
    GlobalIPv6Address: address6,
    GlobalIPv6PrefixLen: Number(prefix6),
    DNSNames: aliases.length === 0 ? null : [...new Set([record.name, ...aliases])],
  };
}

/** All networks of a container by name. */
function endpointsOf(container: Container): Record<string, object> {
  return Object.fromEntries(
    Object.entries(container.record.networks).map(([name, place]) => [
      name,
      endpointOf(container, name, place),
    ]),
  );
}

/** Ports as an inspection has them: by the container's, with those of the host. */
function portMap({ record, running }: Container): Record<string, object[] | null> {
  if (!running) return {};
  const map: Record<string, object[] | null> = {};
  for (const port of Object.keys(record.config.ExposedPorts)) map[port] = null;
  for (const { protocol, guestPort, hostAddress, hostPort } of record.ports) {
    const key = `${guestPort}/${protocol}`;
    map[key] = [...(map[key] ?? []), { HostIp: hostAddress, HostPort: String(hostPort) }];
  }
  return map;
}

/** Ports as a list has them. */
function portList({ record, running }: Container): object[] {
  if (!running) return [];
  const published = record.ports.map(({ protocol, guestPort, hostAddress, hostPort }) => ({
    IP: hostAddress,
    PrivatePort: guestPort,
    PublicPort: hostPort,
    Type: protocol,
  }));
  const bare = Object.keys(record.config.ExposedPorts)
    .map((text) => text.split("/"))
    .filter(
      ([port, type]) =>
        !record.ports.some((one) => String(one.guestPort) === port && one.protocol === type),
    )
    .map(([port, type]) => ({ PrivatePort: Number(port), Type: type }));
  return [...published, ...bare];
}

/** Mounts as clients see them. */
function mountsOf({ mounts }: ContainerRecord): object[] {
  return mounts.map(({ NoCopy: _NoCopy, Part: _Part, Engine: _Engine, ...point }) => point);
}

/** A container in full. */
export function inspection(container: Container): object {
  const { record, running, status } = container;
  const { state, config } = record;
  const argv = argvOf(config);
  const bridged = running && Object.hasOwn(record.networks, "bridge");
  const network = bridged ? container.vmView?.guestNetwork : undefined;
  const [address = "", prefix = "0"] = (network?.ipv4 ?? "").split("/");
  const { health } = container;
  return {
    Id: record.id,
    Created: record.createdAt,
    Path: argv[0] ?? "",
    Args: argv.slice(1),
    State: {
      Status: status,
      Running: container.active || status === "restarting",
      Paused: status === "paused",
      Restarting: status === "restarting",
      OOMKilled: state.oomKilled,
      Dead: status === "dead",
      Pid: state.pid,
      ExitCode: state.exitCode,
      Error: state.error,
      StartedAt: state.startedAt,
      FinishedAt: state.finishedAt,
      ...(health.state === undefined ? {} : { Health: health.state }),
    },
    Image: record.image.id,
    ResolvConfPath: "",
    HostnamePath: "",
    HostsPath: "",
    LogPath: "",
    Name: `/${record.name}`,
    RestartCount: record.restartCount,
    Driver: "vmsan",
    Platform: "linux",
    MountLabel: "",
    ProcessLabel: "",
    AppArmorProfile: "",
    ExecIDs: null,
    HostConfig: record.hostConfig,
    GraphDriver: { Name: "vmsan", Data: null },
    Mounts: mountsOf(record),
    Config: {
      ...config,
      Hostname: hostnameOf(record),
      OnBuild: null,
    },
    NetworkSettings: {
      Bridge: "",
      SandboxID: running ? record.id : "",
      SandboxKey: "",
      Ports: portMap(container),
      Gateway: network?.gateway4 ?? "",
      IPAddress: address,
      IPPrefixLen: Number(prefix),
      MacAddress: network?.mac ?? "",
      Networks: endpointsOf(container),
    },
    // Docker's own clients read over what they do not know.
    Vmsan: { vm: record.vm ?? "" },
  };
}

/** A command line in one text: arguments with blanks in quotes. */
function commandOf(config: ContainerRecord["config"]): string {
  const [path = "", ...args] = argvOf(config);
  return [path, ...args.map((word) => (word.includes(" ") ? `'${word}'` : word))].join(" ");
}

/** A container as one of a list. */
export function summary(container: Container): object {
  const { record, status } = container;
  const mode = (record.hostConfig as HostConfig).NetworkMode;
  return {
    Id: record.id,
    Names: [`/${record.name}`],
    Image: record.config.Image,
    ImageID: record.image.id,
    Command: commandOf(record.config),
    Created: Math.floor(Date.parse(record.createdAt) / 1000),
    Ports: portList(container),
    Labels: record.config.Labels,
    State: status,
    Status: statusText(container),
    HostConfig: { NetworkMode: networkModeOf(mode) },
    NetworkSettings: { Networks: endpointsOf(container) },
    Mounts: mountsOf(record),
  };
}
