/** Routes about builds. */
import { Readable } from "node:stream";
import type { Hono } from "hono";
import { Builder } from "../builds/builder/builder.ts";
import { Builds } from "../builds/builds.ts";
import type { BuildPruneRequest, BuildReport, BuildRequest } from "../model/api/builds.ts";
import { VmsanError, messageOf } from "../model/errors.ts";
import type { Host } from "../sandbox/host.ts";
import type { Sandboxes } from "../sandbox/sandboxes.ts";
import type { Sleep } from "../sandbox/snapshots/sleep.ts";
import { validate, withoutUndefined } from "../schema/api.ts";
import { buildPruneSchema, buildSchema } from "../schema/build.ts";
import { jsonBody, streamedReply } from "../http/reply.ts";

/** Most bytes of a request's first line: a Dockerfile, arguments, secrets. */
const MAX_LINE = 32 << 20;

/** The error for a body that does not begin with a line of JSON. */
function badRequest(why: string): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "The request to build is not usable",
    why,
    fix: "Send a line of JSON, then the context as a tar archive; see docs/api.md.",
  });
}

/** The first line of a body as JSON, and the rest as a stream. */
async function splitBody(body: Readable): Promise<{ head: unknown; rest: Readable }> {
  const chunks = body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  const line: Buffer[] = [];
  let size = 0;
  for (;;) {
    const next = await chunks.next();
    if (next.done === true) throw badRequest("Its first line has no end.");
    const chunk = Buffer.from(next.value);
    const end = chunk.indexOf(0x0a);
    line.push(end === -1 ? chunk : chunk.subarray(0, end));
    size += chunk.length;
    if (end === -1) {
      if (size > MAX_LINE) throw badRequest(`Its first line is longer than ${MAX_LINE} bytes.`);
      continue;
    }
    const rest = (async function* following() {
      yield chunk.subarray(end + 1);
      yield* { [Symbol.asyncIterator]: () => chunks };
    })();
    try {
      return {
        head: JSON.parse(Buffer.concat(line).toString("utf8")),
        rest: Readable.from(rest, { objectMode: false }),
      };
    } catch (error) {
      throw badRequest(messageOf(error));
    }
  }
}

/** Add the routes. */
export function buildRoutes(
  app: Hono,
  host: Host,
  sandboxes: Sandboxes,
  sleep: Pick<Sleep, "channel">,
): void {
  const builder = new Builder(host, sandboxes, sleep);
  const builds = new Builds(host, builder);

  app.post("/v1/builds", (c) => {
    const upload = c.req.raw.body;
    return streamedReply<BuildReport>(c, async (work) => {
      const body = upload === null ? Readable.from([]) : Readable.fromWeb(upload as never);
      try {
        const { head, rest } = await splitBody(body);
        const request = validate(buildSchema, head, "request to build an image");
        const since = performance.now();
        const built = await builds.build(withoutUndefined(request) as BuildRequest, rest, work);
        const seconds = Math.round(performance.now() - since) / 1000;
        const { names: images, digest } = built;
        sandboxes.events.host("image.built", { images, digest, seconds });
        return built;
      } finally {
        body.destroy();
      }
    });
  });

  app.post("/v1/builds/prune", async (c) => {
    const wish = validate(buildPruneSchema, await jsonBody(c), "request to remove the builder");
    return c.json(await builder.prune(withoutUndefined(wish) as BuildPruneRequest));
  });
}
