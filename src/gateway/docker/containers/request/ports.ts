/** Ports of the host that lead to a container's. */
import { createSocket } from "node:dgram";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import type { PublishedPort } from "../../../../model/policy.ts";
import type { ContainerConfig, HostConfig } from "../../../../schema/docker.ts";
import { DockerError } from "../../errors.ts";
import { bracketed } from "../../../../util/hosts/bracketed.ts";

/** Where a port listens whose request names no address. */
const DEFAULT_ADDRESS = "127.0.0.1";

/** A port that is wished for; without numbers of the host, or with a range of them, one is found. */
export interface PortWish {
  protocol: "tcp" | "udp";
  hostAddress: string;
  from?: number;
  to?: number;
  guestPort: number;
}

function wrong(text: string): DockerError {
  return new DockerError(400, `invalid port specification: ${JSON.stringify(text.slice(0, 100))}`);
}

/** `80/tcp`. @throws 400 */
function guestPortOf(text: string): Pick<PortWish, "protocol" | "guestPort"> {
  const match = /^(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  const guestPort = Number(match?.[1] ?? 0);
  if (guestPort < 1 || guestPort > 65_535) throw wrong(text);
  return { guestPort, protocol: match?.[2] === "udp" ? "udp" : "tcp" };
}

/** The wishes of a request. @throws 400 */
export function portWishes(host: HostConfig, config: ContainerConfig): PortWish[] {
  const wishes: PortWish[] = [];
  for (const [text, bindings] of Object.entries(host.PortBindings ?? {})) {
    const guest = guestPortOf(text);
    for (const { HostIp: address, HostPort: port } of bindings ?? []) {
      const match = /^(?:(\d{1,5})(?:-(\d{1,5}))?)?$/.exec(port ?? "");
      const from = Number(match?.[1] ?? 0);
      const to = Number(match?.[2] ?? from);
      if (match === null || from > 65_535 || to > 65_535 || to < from) throw wrong(port ?? "");
      wishes.push({
        ...guest,
        hostAddress: address || DEFAULT_ADDRESS,
        ...(from === 0 ? {} : { from, to }),
      });
    }
  }
  if (host.PublishAllPorts === true) {
    for (const text of Object.keys(config.ExposedPorts)) {
      const guest = guestPortOf(text);
      const there = wishes.some(
        (wish) => wish.guestPort === guest.guestPort && wish.protocol === guest.protocol,
      );
      if (!there) wishes.push({ ...guest, hostAddress: DEFAULT_ADDRESS });
    }
  }
  return wishes;
}

/** Whether a port is free now; 0: which one is. */
async function tryPort(
  { protocol, hostAddress }: PortWish,
  port: number,
): Promise<number | undefined> {
  return await new Promise((resolve) => {
    if (protocol === "udp") {
      const socket = createSocket(hostAddress.includes(":") ? "udp6" : "udp4");
      socket.once("error", () => resolve(undefined));
      socket.bind(port, hostAddress, () => {
        const found = socket.address().port;
        socket.close(() => resolve(found));
      });
      return;
    }
    const server = createServer();
    server.once("error", () => resolve(undefined));
    server.listen(port, hostAddress, () => {
      const found = (server.address() as AddressInfo).port;
      server.close(() => resolve(found));
    });
  });
}

/** Find a port of the host for each wish that leaves it open. @throws 500 when none is free */
export async function choosePorts(wishes: readonly PortWish[]): Promise<PublishedPort[]> {
  const chosen: PublishedPort[] = [];
  const taken = (port: number): boolean => chosen.some(({ hostPort }) => hostPort === port);
  for (const wish of wishes) {
    const { protocol, hostAddress, guestPort, from = 0, to = from } = wish;
    let hostPort = from > 0 && to === from ? from : undefined;
    for (let port = from; hostPort === undefined && port <= to; port += 1) {
      const found = await tryPort(wish, port);
      if (found !== undefined && !taken(found)) hostPort = found;
    }
    if (hostPort === undefined) {
      throw new DockerError(
        500,
        `Bind for ${hostAddress}:${from} failed: port is already allocated`,
      );
    }
    chosen.push({ protocol, hostAddress, hostPort, guestPort });
  }
  return chosen;
}

/** As `ports` of a VM's options. */
export function portWord({ protocol, hostAddress, hostPort, guestPort }: PublishedPort): string {
  return `${bracketed(hostAddress)}:${hostPort}:${guestPort}/${protocol}`;
}
