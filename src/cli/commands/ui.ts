/** `vmsan ui`: the dashboard in a browser, signed in. */
import type { Command } from "commander";
import { command, interruptSignal, runs } from "../command.ts";
import { parseLifetime } from "./key.ts";

interface UiFlags {
  listen?: string;
  project?: string;
  expires?: string;
  open: boolean;
}

/** Start the desktop's browser, where there is a desktop. @returns whether that was tried */
async function openBrowser(address: string): Promise<boolean> {
  const { DISPLAY, WAYLAND_DISPLAY } = process.env;
  if ((DISPLAY ?? WAYLAND_DISPLAY ?? "") === "") return false;
  const { spawn } = await import("node:child_process");
  const child = spawn("xdg-open", [address], { stdio: "ignore", detached: true });
  // Not installed, or no browser: the address has been printed.
  child.on("error", () => undefined);
  child.unref();
  return true;
}

/** The definition. */
export function uiCommand(): Command {
  const target = command("ui", "open the dashboard in a browser")
    .option("--listen <address>", "where it is served when no gateway runs (127.0.0.1:7300)")
    .option("--project <name>", "one project's VMs alone, instead of everything")
    .option("--expires <duration>", "signed in for that long: 30m, 12h, 7d (12h)")
    .option("--no-open", "print the address only")
    .addHelpText("after", AFTER);
  return runs<UiFlags>(target, async ({ flags, output }) => {
    const [{ layoutOf, vmsanDir }, { whoServes }, { handOver, writeDoor }] = await Promise.all([
      import("../../util/paths.ts"),
      import("../../gateway/serving.ts"),
      import("../../gateway/ui/handover.ts"),
    ]);
    const directory = layoutOf(vmsanDir()).gateway;
    const lifetimeMs = parseLifetime(flags.expires ?? "12h");
    const interrupt = interruptSignal();
    const running = flags.listen === undefined ? await whoServes(directory) : undefined;
    const own = running === undefined ? await serveHere(flags.listen) : undefined;
    const { url } = running ?? own ?? { url: "" };
    const { project } = flags;
    const handed = await handOver(directory, url, {
      lifetimeMs,
      ...(project === undefined ? {} : { project }),
    });
    const until = own === undefined ? "" : "\nserving until interrupted";
    output.result({ url, ...handed }, `${handed.link}${until}`);
    if (flags.open) await openBrowser(await writeDoor(directory, handed.link));
    if (own === undefined) return;
    await interrupt.come();
    await own.close();
    const { Keys } = await import("../../gateway/access/keys.ts");
    await new Keys(directory).remove(handed.key);
    interrupt.dispose();
  });
}

/** A gateway of this process's own; at the usual port unless something else has that. */
async function serveHere(listen: string | undefined) {
  const [{ startGateway }, { VmsanError }] = await Promise.all([
    import("../../gateway/gateway.ts"),
    import("../../model/errors.ts"),
  ]);
  try {
    return await startGateway(listen === undefined ? {} : { listen });
  } catch (error) {
    const taken = error instanceof VmsanError && error.code === "ERR_GATEWAY_LISTEN";
    if (listen !== undefined || !taken) throw error;
    return await startGateway({ listen: "127.0.0.1:0" });
  }
}

const AFTER = `
The address holds a key that is made for this and refused after --expires. It stands behind "#", which browsers
send to nobody; whoever has the address has the key. On another machine, forward the port first:
  ssh -L 7300:127.0.0.1:7300 HOST
See docs/dashboard.md.`;
