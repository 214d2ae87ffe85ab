/** Routes about VMs. */
import { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import type { Hono } from "hono";
import * as z from "zod";
import type { HostWishes, VmView } from "../model/api.ts";
import { VmsanError } from "../model/errors.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Sleep } from "../sandbox/snapshots/sleep.ts";
import {
  parseCreateRequest,
  parseUpdateRequest,
  policySchema,
  startSchema,
  validate,
  withoutUndefined,
} from "../schema/api.ts";
import { updateVm } from "../sandbox/update.ts";
import { followFile, readWhole } from "./follow.ts";
import { jsonBody, streamedReply } from "../http/reply.ts";

const stopSchema = z.strictObject({ graceMs: z.int().min(0).max(3_600_000).optional() });

const timeoutSchema = z.strictObject({
  timeoutMs: z
    .int()
    .min(1)
    .max(2 ** 31 - 1)
    .optional(),
});

/** Calls to the agent that are handed through as they are. */
const AGENT_PATHS =
  /^\/v1\/(hello|stats|processes|seal|limits|streams(\/[0-9a-f]{16}(\/(wait|signal))?)?|fs\/[a-z]+)$/;

/**
 * A call to a VM's agent; a sleeping VM is woken, but not by who only waits for a command's end.
 * A call that its VM fell asleep under is made again.
 */
async function askAgent(
  sleep: Pick<Sleep, "channel">,
  id: string,
  method: string,
  path: string,
  options: { body?: unknown; signal: AbortSignal },
): Promise<unknown> {
  const wakes = !path.endsWith("/wait");
  for (;;) {
    const channel = await sleep.channel(id, wakes, options.signal);
    try {
      return await channel.request<unknown>(method, path, options);
    } catch (error) {
      const asleep = error instanceof VmsanError && error.code === "ERR_AGENT_CLOSED";
      if (!asleep || method === "POST") throw error;
      // Stopped or removed: the next turn says so.
    }
  }
}

/** Longest list that is made text of at once, and how much of a longer one is. */
const LIST_PIECE = 500;

/** A list as JSON, bit by bit: a guest's may have hundreds of thousands of entries, and the daemon has others to answer meanwhile. */
async function* jsonOf(list: readonly unknown[]): AsyncGenerator<string> {
  for (let at = 0; at < list.length; at += LIST_PIECE) {
    const text = JSON.stringify(list.slice(at, at + LIST_PIECE));
    yield (at === 0 ? "[" : ",") + text.slice(1, -1);
    await setImmediate();
  }
  yield "]";
}

/** Add the routes below /v1/vms. */
export function vmRoutes(app: Hono, sandboxes: Sandboxes, sleep: Pick<Sleep, "channel">): void {
  app.get("/v1/vms", (c) => {
    const after = c.req.query("after");
    const { vms, next } = sandboxes.page({ project: c.req.query("project"), after });
    // Once, with the first page.
    const damaged = after === undefined ? sandboxes.listDamaged() : [];
    const rest = JSON.stringify({ damaged, next }).slice(1);
    return c.body(`{"vms":[${vms.join(",")}],${rest}`, 200, { "content-type": "application/json" });
  });

  app.post("/v1/vms", async (c) => {
    const request = parseCreateRequest(await jsonBody(c));
    let release: (() => Promise<void>) | undefined;
    return streamedReply<VmView>(
      c,
      async (work) => {
        const view = await sandboxes.create(request, work, (id) => {
          work.send({ event: "vm", id });
          if (request.ephemeral) release = sandboxes.hold(id);
        });
        return view;
      },
      async (gone) => {
        if (release === undefined) return;
        await gone;
        await release();
      },
    );
  });

  app.post("/v1/warm", async (c) => {
    const why = await sandboxes.warm?.ahead(parseCreateRequest(await jsonBody(c)));
    return c.json({ kept: why === undefined, ...(why === undefined ? {} : { why }) });
  });

  app.get("/v1/vms/:id", (c) => c.json(sandboxes.get(c.req.param("id"))));

  app.delete("/v1/vms/:id", async (c) => {
    await sandboxes.remove(c.req.param("id"), c.req.query("force") === "true");
    return c.body(null, 204);
  });

  // Keeps an ephemeral VM for as long as the connection is open.
  app.get("/v1/vms/:id/hold", (c) => {
    const id = c.req.param("id");
    const release = sandboxes.hold(id);
    return streamedReply<VmView>(
      c,
      async () => sandboxes.get(id),
      async (gone) => {
        await gone;
        await release();
      },
    );
  });

  app.post("/v1/vms/:id/start", async (c) => {
    const body = validate(startSchema, await jsonBody(c), "request to start a VM");
    const id = c.req.param("id");
    const host = withoutUndefined(body.host ?? {}) as HostWishes;
    return streamedReply<VmView>(c, (work) =>
      sandboxes.start(id, { ...work, host }, body.bootTimeoutMs),
    );
  });

  app.post("/v1/vms/:id/stop", async (c) => {
    const { graceMs } = validate(stopSchema, await jsonBody(c), "request to stop a VM");
    await sandboxes.stop(c.req.param("id"), graceMs);
    return c.body(null, 204);
  });

  app.post("/v1/vms/:id/update", async (c) => {
    const request = parseUpdateRequest(await jsonBody(c));
    const work = { signal: c.req.raw.signal };
    return c.json(await updateVm(sandboxes, c.req.param("id"), request, work));
  });

  // The time limit counts from now on: the VM's own, or another one.
  app.post("/v1/vms/:id/timeout", async (c) => {
    const { timeoutMs } = validate(timeoutSchema, await jsonBody(c), "time limit of a VM");
    return c.json(await sandboxes.extendTimeout(c.req.param("id"), timeoutMs));
  });

  app.post("/v1/vms/:id/pause", async (c) => {
    await sandboxes.pause(c.req.param("id"));
    return c.body(null, 204);
  });

  app.post("/v1/vms/:id/resume", async (c) => {
    await sandboxes.resume(c.req.param("id"));
    return c.body(null, 204);
  });

  app.put("/v1/vms/:id/policy", async (c) => {
    const policy = withoutUndefined(validate(policySchema, await jsonBody(c), "network policy"));
    return c.json(await sandboxes.updatePolicy(c.req.param("id"), policy as VmView["policy"]));
  });

  app.get("/v1/vms/:id/console", async (c) => {
    const path = sandboxes.consolePath(c.req.param("id"));
    const from = Number(c.req.query("from") ?? 0);
    const offset = Number.isSafeInteger(from) && from > 0 ? from : 0;
    const source =
      c.req.query("follow") === "true"
        ? followFile(path, c.req.raw.signal, offset)
        : await readWhole(path, offset);
    return c.body(Readable.toWeb(source) as ReadableStream, 200, { "content-type": "text/plain" });
  });

  app.all("/v1/vms/:id/agent/*", async (c) => {
    const id = c.req.param("id");
    const path = new URL(c.req.url).pathname.slice(`/v1/vms/${id}/agent`.length);
    if (!AGENT_PATHS.test(path)) return c.notFound();
    const { method } = c.req;
    const body = method === "GET" || method === "DELETE" ? undefined : await jsonBody(c);
    const { signal } = c.req.raw;
    const options = { ...(body === undefined ? {} : { body }), signal };
    const reply = await askAgent(sleep, id, method, path, options);
    if (Array.isArray(reply) && reply.length > LIST_PIECE) {
      const body = Readable.toWeb(Readable.from(jsonOf(reply))) as ReadableStream;
      return c.body(body, 200, { "content-type": "application/json" });
    }
    return reply === undefined ? c.body(null, 204) : c.json(reply as object);
  });
}
