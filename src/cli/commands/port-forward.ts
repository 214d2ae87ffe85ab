/** `vmsan port-forward`: a port of this host reaches one in the VM, or the other way round. */
import type { Command } from "commander";
import type { Endpoint } from "../../agent/ports.ts";
import { parseInteger } from "../../util/units.ts";
import { VmsanError, messageOf } from "../../model/errors.ts";
import { command, interruptSignal, runs } from "../command.ts";

interface Flags {
  reverse?: boolean;
}

function bad(text: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_PORT",
    message: `Invalid forwarding: ${JSON.stringify(text)}`,
    why: "It takes LOCAL:REMOTE, each a port, ADDRESS:PORT or the path of a unix socket.",
    fix: "For example: 8080:80, 127.0.0.1:8080:80, /run/a.sock:/run/b.sock.",
  });
}

/** One side: a port, with an address before it or not, or a path. */
function endpoint(parts: readonly string[], text: string): Endpoint {
  const [first = "", second] = parts;
  if (parts.length === 1 && first.startsWith("/")) return { network: "unix", path: first };
  if (parts.length === 1) {
    return { network: "tcp", host: "127.0.0.1", port: parseInteger("port", first, 1, 65_535) };
  }
  if (parts.length === 2 && second !== undefined && first !== "") {
    return { network: "tcp", host: first, port: parseInteger("port", second, 1, 65_535) };
  }
  throw bad(text);
}

/** Both sides of `8080`, `8080:80`, `ADDR:8080:80`, `ADDR:8080:ADDR:80`, with paths for ports. */
export function parseForwarding(text: string): { local: Endpoint; remote: Endpoint } {
  const parts = text.split(":");
  if (parts.includes("") || parts.length > 4) throw bad(text);
  if (parts.length === 1) {
    return { local: endpoint(parts, text), remote: endpoint(parts, text) };
  }
  const [first = "", , third = ""] = parts;
  const localParts =
    parts.length === 4 || (parts.length === 3 && !first.startsWith("/") && !/^\d+$/.test(first))
      ? 2
      : 1;
  // `8080:ADDR:80` leaves two parts for the remote side.
  if (parts.length === 3 && localParts === 1 && third === "") throw bad(text);
  return {
    local: endpoint(parts.slice(0, localParts), text),
    remote: endpoint(parts.slice(localParts), text),
  };
}

function show(side: Endpoint): string {
  return side.network === "unix" ? side.path : `${side.host}:${side.port}`;
}

/** The definition. */
export function portForwardCommand(): Command {
  const target = command(
    "port-forward <vm> <local:remote...>",
    "reach ports of a VM from this host, whatever its network policy",
  ).option("-R, --reverse", "the other way: REMOTE in the VM reaches LOCAL here");
  return runs<Flags>(target, async (context, ref: string, specs: string[]) => {
    const wanted = specs.map(parseForwarding);
    const { output, flags } = context;
    const vm = await (await context.vmsan()).get(ref);
    const { forwardToGuest, forwardToHost } = await import("../../agent/ports.ts");
    const onError = (error: unknown): void => output.note(`port-forward: ${messageOf(error)}`);
    const interrupt = interruptSignal();
    const open = [];
    try {
      for (const { local, remote } of wanted) {
        const forwarding =
          flags.reverse === true
            ? await forwardToHost(vm.transport, remote, local, { onError })
            : await forwardToGuest(vm.transport, local, remote, { onError });
        open.push(forwarding);
        const [from, to] =
          flags.reverse === true ? [forwarding.address, local] : [forwarding.address, remote];
        output.result(
          { vmId: vm.id, from: show(from), to: show(to) },
          `${show(from)} -> ${show(to)}`,
        );
      }
      await Promise.race([
        ...open.map(({ ended }) => ended),
        new Promise((resolve) =>
          interrupt.signal.addEventListener("abort", resolve, { once: true }),
        ),
      ]);
      return interrupt.signal.aborted ? 128 + interrupt.number() : 1;
    } finally {
      interrupt.dispose();
      await Promise.all(open.map((forwarding) => forwarding.close()));
    }
  });
}
