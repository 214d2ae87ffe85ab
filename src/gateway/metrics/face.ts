/** `/metrics`: what Prometheus asks for. */
import type { IncomingMessage } from "node:http";
import type { Vmsan } from "../../client/vmsan.ts";
import { messageOf, VmsanError } from "../../model/errors.ts";
import type { MetricFamily } from "../../model/metrics.ts";
import { Counter, Histogram } from "../../util/flow/counters.ts";
import { ownUse } from "../../util/process/own-use.ts";
import type { Gate } from "../access/gate.ts";
import type { Hosts } from "../http/hosts.ts";
import type { Face } from "../http/server.ts";
import { guestPortOf } from "../ports/access.ts";
import { METRICS_TYPE, metricsText } from "./text.ts";

/** Upper bounds of requests, in seconds. */
const SECONDS = [0.005, 0.025, 0.1, 0.5, 2.5, 10, 60];

/** What this gateway has answered. */
export class RequestTotals {
  private readonly requests = new Counter(
    "vmsan_gateway_requests_total",
    "Answered requests, by protocol and status.",
  );
  private readonly times = new Histogram(
    "vmsan_gateway_request_seconds",
    "Time until a request was answered or its stream had ended.",
    SECONDS,
  );

  /** Count one. @param face none for requests that no protocol has */
  readonly note = (face: string | undefined, status: number, ms: number): void => {
    const name = face ?? "none";
    this.requests.add({ face: name, status: String(status) });
    this.times.observe({ face: name }, ms / 1000);
  };

  families(): MetricFamily[] {
    return [this.requests.family(), this.times.family()];
  }
}

/** Whether the daemon answers, and what it counts. */
async function ofDaemon(vmsan: Vmsan): Promise<MetricFamily[]> {
  const up = (value: number, help: string): MetricFamily => ({
    name: "vmsan_daemon_up",
    help,
    type: "gauge",
    samples: [{ labels: {}, value }],
  });
  try {
    return [up(1, "Whether the daemon answers."), ...(await vmsan.metrics())];
  } catch (error) {
    const why = messageOf(error).replaceAll("\n", " ");
    return [up(0, `Whether the daemon answers. It does not: ${why}`)];
  }
}

/** What the face works with. */
export interface MetricsParts {
  vmsan: Vmsan;
  totals: RequestTotals;
  hosts: Hosts;
  /** Asked for an admin key; absent on an address that only this machine reaches. */
  gate?: Gate;
}

/** The face. */
export function metricsFace({ vmsan, totals, hosts, gate }: MetricsParts): Face {
  const path = (request: IncomingMessage): string => (request.url ?? "").split("?", 1)[0] ?? "";
  return {
    name: "metrics",
    claims: (request) => path(request) === "/metrics" && guestPortOf(request, hosts) === undefined,
    handle: async (request, response) => {
      if (gate !== undefined) {
        response.once("close", () => gate.note(request, "metrics", response.statusCode));
        const { key } = await gate.admit(request);
        if (!key.admin) {
          throw new VmsanError({
            code: "ERR_GATEWAY_FORBIDDEN",
            message: "Not through this key: GET /metrics",
            why: "It concerns the whole host.",
            fix: "Use a key made with `vmsan key create --admin`, or serve with --metrics-listen.",
          });
        }
      }
      const families = [
        ...(await ofDaemon(vmsan)),
        ...totals.families(),
        ...ownUse("vmsan_gateway"),
      ];
      response.writeHead(200, { "content-type": METRICS_TYPE, "cache-control": "no-store" });
      response.end(metricsText(families));
    },
  };
}
