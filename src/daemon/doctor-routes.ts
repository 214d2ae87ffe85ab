/** What this host can do and what is in the way, for those who cannot ask it themselves. */
import type { Hono } from "hono";
import { runDoctor } from "../doctor/doctor.ts";
import { streamedReply } from "../http/reply.ts";
import type { DoctorReport } from "../model/doctor.ts";
import type { Layout } from "../util/paths.ts";
import { packageVersion } from "../util/package.ts";

/** Add the route: each check is told as it ends, then the report. */
export function doctorRoutes(app: Hono, layout: Layout): void {
  app.post("/v1/doctor", (c) =>
    streamedReply<DoctorReport>(c, ({ signal, progress }) =>
      runDoctor({
        layout,
        signal,
        daemon: () => Promise.resolve({ version: packageVersion(), pid: process.pid }),
        onResult: ({ name, status }) =>
          progress({ phase: "doctor", item: name, message: `${name}: ${status}` }),
      }),
    ),
  );
}
