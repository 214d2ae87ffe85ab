/** Routes about further commands. */
import { execView, resizeExec } from "../containers/execs.ts";
import { bodyOf, reply } from "../http/route.ts";
import type { Route } from "../http/route.ts";

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
    run: async (call) =>
      await call.engine.execs.start(call, call.engine.execs.find(call.params["id"] ?? "")),
  },
  {
    method: "POST",
    path: "/exec/:id/resize",
    says: "works",
    run: async (call) => {
      resizeExec(call, call.engine.execs.find(call.params["id"] ?? ""));
      await Promise.resolve();
    },
  },
  {
    method: "GET",
    path: "/exec/:id/json",
    says: "works",
    run: async (call) =>
      reply(call, await Promise.resolve(execView(call.engine.execs.find(call.params["id"] ?? "")))),
  },
];
