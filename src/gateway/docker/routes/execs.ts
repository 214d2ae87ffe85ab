/** Routes about further commands. */
import { execView, resizeExec } from "../containers/execs.ts";
import type { Exec } from "../containers/execs.ts";
import { bodyOf, done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";

const execOf = ({ engine, params }: Call): Exec => engine.execs.find(params["id"] ?? "");

/** The table. */
export const execRoutes: readonly Route[] = [
  {
    method: "POST",
    path: "/containers/:id/exec",
    says: "works",
    run: async (call) => {
      const container = call.engine.find(call.params["id"] ?? "");
      const exec = await call.engine.execs.create(container, await bodyOf(call));
      reply(call, { Id: exec.id }, 201);
    },
  },
  {
    method: "POST",
    path: "/exec/:id/start",
    says: "works",
    hijacks: true,
    run: async (call) => {
      const exec = execOf(call);
      await call.engine.execs.start(await call.hijack(), exec);
    },
  },
  {
    method: "POST",
    path: "/exec/:id/resize",
    says: "works",
    run: async (call) => {
      resizeExec(execOf(call), call.query.number("h") ?? 0, call.query.number("w") ?? 0);
      done(call, 200);
      await Promise.resolve();
    },
  },
  {
    method: "GET",
    path: "/exec/:id/json",
    says: "works",
    run: async (call) => reply(call, await Promise.resolve(execView(execOf(call)))),
  },
];
