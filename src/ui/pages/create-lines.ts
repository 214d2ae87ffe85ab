/** What stands in lines of the form of a new VM, as the request has it. */

/** Lines without those that are empty. */
export const linesOf = (text: string): string[] =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "");

/** Numbers, with commas or lines between. */
export const numbers = (text: string): number[] => linesOf(text.replaceAll(",", "\n")).map(Number);

/** `8080` or `8080:80`, with `/udp` and an address in front where wanted. */
export function port(line: string): object {
  const match = /^(?:(?:\[([^\]]+)\]|(\d+(?:\.\d+){3})):)?(?:(\d+):)?(\d+)(?:\/(tcp|udp))?$/.exec(
    line,
  );
  if (match === null)
    throw new Error(`No port: ${line}. For example 8080, 8080:80, 0.0.0.0:53:53/udp.`);
  const [, v6, v4, host, guest, protocol] = match;
  return {
    protocol: protocol ?? "tcp",
    hostAddress: v6 ?? v4 ?? "127.0.0.1",
    hostPort: Number(host ?? guest),
    guestPort: Number(guest),
  };
}

/** `NAME:/path`, `/path`, each with `:ro`. */
export function mount(line: string): object {
  const match = /^(?:([^/:]+):)?(\/[^:]*)(:ro)?$/.exec(line);
  if (match === null)
    throw new Error(`No mount: ${line}. For example data:/srv, data:/srv:ro, /scratch.`);
  const [, name, target, readonly] = match;
  if (name === undefined) return { kind: "anonymous", target };
  return { kind: "volume", name, target, readonly: readonly !== undefined };
}

/** `KEY=VALUE` lines as an object. */
export function pairs(text: string): Record<string, string> {
  return Object.fromEntries(
    linesOf(text).map((line) => {
      const at = line.indexOf("=");
      return at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1)];
    }),
  );
}

/** `NAME=value@domain,domain`, with `#header`, `#query` or `#body` behind; the value is not repeated in errors. */
export function secret(line: string): object {
  const match = /^([A-Za-z_][A-Za-z0-9_]*)=(.+)@([^@#]+)(?:#([a-z,]+))?$/.exec(line);
  if (match === null) {
    const name = line.split("=", 1)[0] ?? "";
    throw new Error(`No secret: ${name}=…. For example TOKEN=value@api.example.com.`);
  }
  const [, name, value, domains = "", places] = match;
  const split = (text: string): string[] => text.split(",").map((part) => part.trim());
  return {
    name,
    value,
    domains: split(domains),
    ...(places === undefined ? {} : { places: split(places) }),
  };
}
