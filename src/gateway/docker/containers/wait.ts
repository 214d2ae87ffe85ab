/** `POST /containers/ID/wait`: its headers go out at once, since clients start the container only then. */
import { DockerError } from "../errors.ts";
import type { Call } from "../http/route.ts";
import { beginStream } from "../http/wire.ts";
import type { Container } from "./container.ts";

/** Wait as a client asks, and tell the exit code. @throws 400 */
export async function waitFor(call: Call, container: Container): Promise<void> {
  const condition = call.query.text("condition") || "not-running";
  if (!["not-running", "next-exit", "removed"].includes(condition)) {
    throw new DockerError(400, `invalid condition: "${condition.slice(0, 60)}"`);
  }
  const { response } = call;
  const now = condition === "not-running" && !container.active;
  const exit = now ? undefined : container.nextExit();
  const removal = condition === "removed" ? container.removal() : undefined;
  beginStream(response, "application/json");
  if (exit !== undefined) {
    // Removed without a run there is no exit to wait for.
    if (removal !== undefined) await Promise.race([exit, removal]);
    else await exit;
  }
  await removal;
  // Why it could not be started is what `start` answers; clients would print it twice.
  const { exitCode } = container.record.state;
  response.end(`${JSON.stringify({ Error: null, StatusCode: exitCode })}\n`);
}
