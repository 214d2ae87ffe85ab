/** Kernel settings that let a host pass VMs' packets on, and what they bring along. */
import { existsSync, readFileSync, readdirSync } from "node:fs";

const root = "/proc/sys/net";

/** Paths of one setting for all interfaces, `all` and `default` included. */
function everywhere(family: "ipv4" | "ipv6", setting: string): string[] {
  const dir = `${root}/${family}/conf`;
  if (!existsSync(dir)) return [];
  return readdirSync(dir).map((name) => `${dir}/${name}/${setting}`);
}

/**
 * Settings by path below /proc/sys/net.
 * @param routers keep interfaces that learn their IPv6 route from routers learning: forwarding
 *   makes Linux ignore router advertisements unless told otherwise (2)
 */
export function forwardingSettings(ipv6: boolean, routers: boolean): Record<string, string> {
  const learning = everywhere("ipv6", "accept_ra").filter(
    (path) => existsSync(path) && readFileSync(path, "utf8").trim() === "1",
  );
  return {
    ...(ipv6 && routers ? Object.fromEntries(learning.map((path) => [path, "2"])) : {}),
    [`${root}/ipv4/ip_forward`]: "1",
    ...(ipv6 ? { [`${root}/ipv6/conf/all/forwarding`]: "1" } : {}),
  };
}

/** What the kernel changes by itself along with those (ip-sysctl.rst). */
export function forwardingEffects(): string[] {
  return [
    ...everywhere("ipv4", "forwarding"),
    ...everywhere("ipv6", "forwarding"),
    `${root}/ipv4/conf/all/accept_redirects`,
  ].filter((path) => !path.endsWith("/ipv6/conf/all/forwarding"));
}
