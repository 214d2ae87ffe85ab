/** Routes below /containers. */
import { containerUpdateSchema } from "../../../schema/docker.ts";
import type { HostConfig } from "../../../schema/docker.ts";
import { exportFiles, getArchive, putArchive, statPath } from "../containers/archive.ts";
import { attach, attachWebSocket } from "../containers/attach.ts";
import type { Container } from "../containers/container.ts";
import { checkName, createContainer } from "../containers/request/create.ts";
import {
  checkRestartPolicy,
  memoryOf,
  processorsOf,
  unappliedOf,
} from "../containers/request/host-config.ts";
import { CONTAINER_FILTERS, isListed } from "../containers/list.ts";
import { sizesOf } from "../containers/size.ts";
import { sendStats } from "../containers/stats.ts";
import { top } from "../containers/top.ts";
import { inspection, summary } from "../containers/view.ts";
import { waitFor } from "../containers/wait.ts";
import { DockerError } from "../errors.ts";
import { readBody } from "../http/bodies.ts";
import { untilOf } from "../http/moments.ts";
import { bodyOf, done, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import { serveLogs } from "../logs/serve.ts";

const containerOf = ({ engine, params }: Call): Container => engine.find(params["id"] ?? "");

/** How a container is to be stopped: seconds until it is killed, and with which signal. */
function endOf({ query }: Call): [seconds?: number | undefined, signal?: string | undefined] {
  return [query.number("t"), query.text("signal") || undefined];
}

/** Another name. @throws 409 */
async function rename(call: Call): Promise<void> {
  const container = containerOf(call);
  const wished = call.query.text("name");
  if (wished.replace(/^\//, "") === container.record.name) {
    throw new DockerError(400, "Renaming a container with the same name as its current name");
  }
  await container.rename(() => checkName(call.engine, wished));
  done(call);
}

/** Other limits, and another restart policy. */
async function update(call: Call): Promise<void> {
  const container = containerOf(call);
  const body = readBody(containerUpdateSchema, await bodyOf(call), "update of a container");
  const { record } = container;
  const host = record.hostConfig as HostConfig;
  const { Name, MaximumRetryCount: most } = body.RestartPolicy ?? {};
  const policy = Name ? { RestartPolicy: { Name, MaximumRetryCount: most ?? 0 } } : {};
  checkRestartPolicy({ ...host, ...policy });
  const { fields, words: warnings } = unappliedOf(body);
  const { Memory, NanoCpus, CpuPeriod, CpuQuota } = body;
  const sizes = Object.entries({ Memory, NanoCpus, CpuPeriod, CpuQuota }).filter(
    ([, size]) => size,
  );
  const resized = sizes.length > 0;
  if (resized) {
    if (container.active) {
      throw new DockerError(
        409,
        `Cannot update container ${container.id}: a microVM's size changes while it is stopped`,
      );
    }
    const wished = { ...host, ...Object.fromEntries(sizes) };
    const { memMib, warning } = memoryOf(wished.Memory);
    if (warning !== undefined) warnings.push(warning);
    await container.resizeVm(memMib, processorsOf(wished));
    Object.assign(host, Object.fromEntries(sizes));
  }
  // What does nothing is shown as it was asked for, as it is of a container that is made with it.
  Object.assign(host, policy, fields);
  await container.save();
  container.tell("update");
  reply(call, { Warnings: warnings.length === 0 ? null : warnings });
}

/** Remove those that do not run. */
async function prune(call: Call): Promise<void> {
  const filters = call.query.filters().only(["label", "label!", "until"]);
  const until = untilOf(filters);
  const removed: string[] = [];
  for (const container of call.engine.containers) {
    const { config, createdAt } = container.record;
    if (container.active || !filters.allowsLabels(config.Labels)) continue;
    if (Date.parse(createdAt) > until) continue;
    await container.remove(false);
    removed.push(container.id);
  }
  reply(call, { ContainersDeleted: removed, SpaceReclaimed: 0 });
}

/** What a container has changed of its image. */
async function changes(call: Call): Promise<void> {
  const kinds = { changed: 0, added: 1, deleted: 2 };
  const { vm } = containerOf(call).record;
  if (vm === undefined) return reply(call, null);
  const entries = await (await call.engine.vmsan.get(vm)).diff();
  reply(
    call,
    entries.map(({ path, kind }) => ({ Path: path, Kind: kinds[kind] })),
  );
}

/** The table. */
export const containerRoutes: readonly Route[] = [
  {
    method: "GET",
    path: "/containers/json",
    says: "works",
    run: async (call) => {
      const { query, engine } = call;
      const filters = query.filters().only(CONTAINER_FILTERS);
      const limit = query.number("limit") ?? 0;
      const all = query.flag("all") || limit > 0;
      const found = engine.containers.filter((one) => isListed(one, filters, all, engine));
      const listed = limit > 0 ? found.slice(0, limit) : found;
      const sizes = query.flag("size") ? await sizesOf(engine, listed) : [];
      reply(
        call,
        listed.map((one, index) => ({ ...summary(one), ...sizes[index] })),
      );
    },
  },
  {
    method: "POST",
    path: "/containers/create",
    says: "differs",
    note: "a document, no VM yet; `--privileged` is accepted, what a VM cannot do is refused (below); ports without an address are on 127.0.0.1",
    run: async (call) => {
      const { engine, query } = call;
      const { container, warnings } = await createContainer(
        engine,
        await bodyOf(call),
        query.text("name"),
        query.text("platform"),
      );
      reply(call, { Id: container.id, Warnings: warnings }, 201);
    },
  },
  {
    method: "POST",
    path: "/containers/prune",
    says: "works",
    run: prune,
  },
  {
    method: "GET",
    path: "/containers/:id/json",
    says: "works",
    run: async (call) => {
      const container = containerOf(call);
      const [size] = call.query.flag("size") ? await sizesOf(call.engine, [container]) : [];
      reply(call, { ...inspection(container), ...size });
    },
  },
  {
    method: "GET",
    path: "/containers/:id/top",
    says: "differs",
    note: "by the agent, so that the image needs no `ps`; `-ef`, `aux`, `-o`",
    run: async (call) => await top(call, containerOf(call)),
  },
  {
    method: "GET",
    path: "/containers/:id/logs",
    says: "works",
    run: async (call) => await serveLogs(call, containerOf(call)),
  },
  {
    method: "GET",
    path: "/containers/:id/changes",
    says: "works",
    run: changes,
  },
  {
    method: "GET",
    path: "/containers/:id/export",
    says: "works",
    run: async (call) => await exportFiles(call, containerOf(call)),
  },
  {
    method: "GET",
    path: "/containers/:id/stats",
    says: "differs",
    note: "of the whole guest, its kernel included",
    run: async (call) => await sendStats(call, containerOf(call)),
  },
  {
    method: "POST",
    path: "/containers/:id/resize",
    says: "works",
    run: async (call) => {
      containerOf(call).resize(call.query.number("h") ?? 0, call.query.number("w") ?? 0);
      done(call, 200);
      await Promise.resolve();
    },
  },
  {
    method: "POST",
    path: "/containers/:id/start",
    says: "works",
    run: async (call) => done(call, (await containerOf(call).start()) ? 204 : 304),
  },
  {
    method: "POST",
    path: "/containers/:id/stop",
    says: "differs",
    note: "the main process is not number 1: TERM ends it although it handles no signals",
    run: async (call) => {
      const stopped = await containerOf(call).stop(...endOf(call));
      done(call, stopped ? 204 : 304);
    },
  },
  {
    method: "POST",
    path: "/containers/:id/restart",
    says: "works",
    run: async (call) => {
      await containerOf(call).restart(...endOf(call));
      done(call);
    },
  },
  {
    method: "POST",
    path: "/containers/:id/kill",
    says: "works",
    run: async (call) => {
      await containerOf(call).kill(call.query.text("signal") || "KILL");
      done(call);
    },
  },
  {
    method: "POST",
    path: "/containers/:id/update",
    says: "differs",
    note: "a VM's memory and processors change while it is stopped",
    run: update,
  },
  { method: "POST", path: "/containers/:id/rename", says: "works", run: rename },
  {
    method: "POST",
    path: "/containers/:id/pause",
    says: "works",
    run: async (call) => {
      await containerOf(call).pause();
      done(call);
    },
  },
  {
    method: "POST",
    path: "/containers/:id/unpause",
    says: "works",
    run: async (call) => {
      await containerOf(call).unpause();
      done(call);
    },
  },
  {
    method: "POST",
    path: "/containers/:id/attach",
    says: "works",
    hijacks: true,
    run: async (call) => await attach(call, containerOf(call)),
  },
  {
    method: "GET",
    path: "/containers/:id/attach/ws",
    says: "works",
    hijacks: true,
    run: async (call) => await attachWebSocket(call, containerOf(call)),
  },
  {
    method: "POST",
    path: "/containers/:id/wait",
    says: "works",
    run: async (call) => await waitFor(call, containerOf(call)),
  },
  {
    method: "DELETE",
    path: "/containers/:id",
    says: "works",
    run: async (call) => {
      const container = containerOf(call);
      if (call.query.flag("link")) throw new DockerError(400, "there are no links");
      await container.remove(call.query.flag("force"));
      done(call);
    },
  },
  {
    method: "HEAD",
    path: "/containers/:id/archive",
    says: "works",
    run: async (call) => await statPath(call, containerOf(call)),
  },
  {
    method: "GET",
    path: "/containers/:id/archive",
    says: "works",
    run: async (call) => await getArchive(call, containerOf(call)),
  },
  {
    method: "PUT",
    path: "/containers/:id/archive",
    says: "differs",
    note: "all of it appears, or nothing; the VM of a container that does not run is started for it",
    run: async (call) => await putArchive(call, containerOf(call)),
  },
];
