/** Routes for ssh: how a VM is known, and a server in its guest that is ready for a connection. */
import type { Hono } from "hono";
import { prepareSsh, sshPublicKey } from "../agent/ssh.ts";
import type { SshView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Sleep } from "../sandbox/snapshots/sleep.ts";
import { sshServerBinary } from "../util/package.ts";

/** The error of an agent that is older than this daemon. */
function olderAgent(id: string, cause: VmsanError): VmsanError {
  return new VmsanError(
    {
      code: "ERR_SSH_AGENT",
      message: `The agent in ${id} knows no ssh`,
      why: "It is of an older vmsan: the VM has been running since before the upgrade.",
      fix: `vmsan stop ${id}, then vmsan start ${id}.`,
    },
    cause,
  );
}

/** Add the routes below /v1/vms/REF/ssh. */
export function sshRoutes(app: Hono, sandboxes: Sandboxes, sleep: Pick<Sleep, "channel">): void {
  /** One at a time for each VM: the program is to be sent once. */
  const underway = new Map<string, Promise<void>>();

  app.get("/v1/vms/:id/ssh", async (c) => {
    const { id } = sandboxes.get(c.req.param("id"));
    const hostKey = sshPublicKey(await sandboxes.records.sshHostKey(id));
    return c.json({ hostKey } satisfies SshView);
  });

  // Wakes a VM that sleeps.
  app.post("/v1/vms/:id/ssh", async (c) => {
    const { id } = sandboxes.get(c.req.param("id"));
    const seed = await sandboxes.records.sshHostKey(id);
    // Whoever waits for another one's call must not be ended by that one's going away.
    const signal = AbortSignal.timeout(PREPARE_MS);
    const prepare = async (): Promise<void> => {
      const channel = await sleep.channel(id, true, signal);
      await prepareSsh(channel, seed, sshServerBinary(), signal);
    };
    const work = underway.get(id) ?? prepare().finally(() => underway.delete(id));
    underway.set(id, work);
    try {
      await work;
    } catch (error) {
      const older = error instanceof VmsanError && error.code === "ERR_AGENT_REQUEST";
      throw older ? olderAgent(id, error) : error;
    }
    return c.json({ hostKey: sshPublicKey(seed) } satisfies SshView);
  });
}

/** How long a guest may take, in milliseconds. */
const PREPARE_MS = 120_000;
