/** A session on this process's standard input and output. */
import { StdioServerTransport, serveStdio } from "@modelcontextprotocol/server/stdio";
import type { Vmsan } from "../client/vmsan.ts";
import { messageOf } from "../model/errors.ts";
import type { AgentPolicy } from "../model/agent-policy.ts";
import { mcpServer } from "./server.ts";
import { Session } from "./session.ts";

/** Longest message, in bytes. */
const MAX_MESSAGE = 16 << 20;

/** How a session on standard input and output is served. */
export interface StdioOptions {
  vmsan: Vmsan;
  policy: AgentPolicy;
  /** Project of its sandboxes. */
  project?: string;
  /** Driver of its sandboxes; default: what the host can. */
  driver?: "auto" | "fake" | "firecracker" | "qemu";
  /** Ends the session. */
  signal: AbortSignal;
  /** Told of what went wrong without a caller; not on standard output, which is the protocol's. */
  log: (message: string) => void;
}

/** Serve until standard input ends or the signal aborts; then the session's sandboxes are removed. */
export async function serveOnStdio(options: StdioOptions): Promise<void> {
  const { vmsan, policy, project, driver, signal, log } = options;
  const session = new Session({
    vmsan,
    policy,
    base: {
      ...(project === undefined ? {} : { project }),
      ...(driver === undefined ? {} : { driver }),
    },
    log,
  });
  const transport = new StdioServerTransport(process.stdin, process.stdout, {
    maxBufferSize: MAX_MESSAGE,
  });
  const ended = new Promise<void>((resolve) => {
    process.stdin.once("end", resolve);
    process.stdin.once("close", resolve);
    process.stdout.once("error", () => resolve());
    signal.addEventListener("abort", () => resolve(), { once: true });
  });
  const handle = serveStdio(() => mcpServer(session), {
    transport,
    onerror: (error) => log(messageOf(error)),
  });
  await ended;
  await handle.close();
  await session.close();
}
