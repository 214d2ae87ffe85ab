/** The usual proxy variables, read as curl and Go read them. */
import { BlockList, isIP } from "node:net";
import { isLoopback } from "../../util/hosts/loopback.ts";
import { imageError } from "../errors.ts";

/** Whether one entry of NO_PROXY covers a host. */
function covers(entry: string, host: string, port: string): boolean {
  if (entry === "*") return true;
  const slash = entry.indexOf("/");
  if (slash !== -1) {
    const address = entry.slice(0, slash);
    const family = isIP(address);
    if (family === 0 || isIP(host) !== family) return false;
    const type = family === 6 ? "ipv6" : "ipv4";
    const prefix = Number(entry.slice(slash + 1));
    if (!Number.isInteger(prefix) || prefix < 0 || prefix > (family === 6 ? 128 : 32)) return false;
    const list = new BlockList();
    list.addSubnet(address, prefix, type);
    return list.check(host, type);
  }
  let name = entry;
  const portMatch = isIP(entry) === 6 ? null : /^(.*):(\d+)$/.exec(entry);
  if (portMatch !== null) {
    if (portMatch[2] !== port) return false;
    name = portMatch[1] ?? "";
  }
  name = name
    .replace(/^\[|\]$/g, "")
    .replace(/^\*?\./, "")
    .toLowerCase();
  return name !== "" && (host === name || (isIP(host) === 0 && host.endsWith(`.${name}`)));
}

/**
 * The proxy for an address according to HTTP_PROXY, HTTPS_PROXY and NO_PROXY (or their
 * lower-case twins, which win); this machine's own addresses never go through one.
 */
export function proxyFor(url: URL, env: NodeJS.ProcessEnv): URL | undefined {
  const host = url.hostname.replace(/^\[|\]$/g, "").toLowerCase();
  if (isLoopback(host)) return undefined;
  const name = url.protocol === "https:" ? "https_proxy" : "http_proxy";
  const value = env[name] ?? env[name.toUpperCase()] ?? "";
  if (value === "") return undefined;
  const port = url.port === "" ? (url.protocol === "https:" ? "443" : "80") : url.port;
  const exceptions = (env["no_proxy"] ?? env["NO_PROXY"] ?? "").split(",");
  if (exceptions.some((entry) => covers(entry.trim(), host, port))) return undefined;
  const text = value.includes("://") ? value : `http://${value}`;
  if (URL.canParse(text)) return new URL(text);
  // The value may hold a password: it is not repeated.
  throw imageError(
    "ERR_IMAGE_PROXY",
    `Cannot use the proxy for ${url.host}`,
    `The variable ${env[name] === undefined ? name.toUpperCase() : name} holds no address.`,
    "Write it like http://proxy.example:3128.",
  );
}
