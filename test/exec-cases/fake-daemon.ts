/** A daemon's API with one VM, also for `run`, whose guest is a process of this host: for clients, not for VMs. */
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Hono } from "hono";
import type { StreamOpener } from "../../src/agent/transport.ts";
import { serve } from "../../src/daemon/server.ts";
import { streamedReply } from "../../src/http/reply.ts";
import { sshRoutes } from "../../src/daemon/ssh-routes.ts";
import type { CreateRequest } from "../../src/model/api.ts";
import { VmsanError } from "../../src/model/errors.ts";
import { Events } from "../../src/sandbox/records/events.ts";
import type { Sandboxes } from "../../src/sandbox/sandboxes.ts";
import type { Work } from "../../src/sandbox/stages.ts";
import { layoutOf } from "../../src/util/paths.ts";
import { fakeGuest } from "./fake-guest.ts";

/** A daemon that clients find by VMSAN_DIR. */
export interface FakeDaemon {
  /** VMSAN_DIR; its one VM is named `vm`. */
  dir: string;
  /** Break all connections to the guest's streams, which go on. @returns how many there were */
  cut: () => number;
  /** Requests to make a VM, and how often one was removed. */
  made: { requests: CreateRequest[]; removed: number };
  /** Requests to pull an image, without what is said of registries. */
  pulls: object[];
  close: () => Promise<void>;
}

/** Pulls of images that are not there: what they say, and how they end. */
function pullRoute(app: Hono, pulls: object[]): void {
  app.post("/v1/images/pull", async (c) => {
    const { registry: _registry, ...request } = await c.req.json<{
      image: string;
      registry: object;
    }>();
    pulls.push(request);
    return streamedReply(c, async (work) => {
      work.progress({ phase: "resolve", message: request.image });
      for (const [item, total] of [
        ["sha256:1", 0],
        ["sha256:2", 2304],
        ["sha256:3\n", 15 * 2 ** 20],
        ["sha256:4", 3 * 2 ** 40],
      ] as const) {
        for (const done of [0, total / 2, total, total]) {
          work.progress({ phase: "pull", item, done, total, unit: "bytes" });
        }
      }
      work.progress({ phase: "unpack", item: "files", done: 1, total: 7, unit: "entries" });
      work.progress({ phase: "unpack", done: 7, total: 7 });
      if (request.image === "no-such-image") {
        const why = "It is in no registry.";
        throw new VmsanError({ code: "ERR_IMAGE_NOT_FOUND", message: "No such image", why });
      }
      // Until the caller goes away.
      if (request.image === "slow") await once(work.signal, "abort");
      return { digest: `sha256:${"a".repeat(64)}`, names: [request.image] };
    });
  });
}

/** Start it; `close` leaves nothing. @param view what the VM has besides its ID */
export async function fakeDaemon(view: object = {}): Promise<FakeDaemon> {
  const dir = await mkdtemp(join(tmpdir(), "vmsan-daemon-"));
  const guest = await fakeGuest();
  const layout = layoutOf(dir);
  await mkdir(layout.run, { mode: 0o700 });
  const notFound = (ref: string): VmsanError =>
    new VmsanError({
      code: "ERR_VM_NOT_FOUND",
      message: `No VM ${ref}`,
      why: "No VM has that ID or name.",
      fix: "Run `vmsan list` to see all.",
    });
  const find = (ref: string): object => {
    const id = "vm-0123abcd";
    if (ref === id || ref === "vm") return { id, defaults: { env: [] }, ...view };
    throw notFound(ref);
  };
  const streams = new Set<Duplex>();
  // What `run` makes, until it is removed.
  let isThere = false;
  const made: FakeDaemon["made"] = { requests: [], removed: 0 };
  const sandboxes = {
    get: find,
    find: (ref: string) => ({ record: { ...find(ref), project: "" } }),
    entries: new Map(),
    events: new Events(),
    log: { info: (): void => undefined },
    page: () => ({ vms: [JSON.stringify(find("vm"))] }),
    listDamaged: () => [],
    create: async (request: CreateRequest, work: Work, onId: (id: string) => void) => {
      made.requests.push(request);
      isThere = true;
      onId("vm-0123abcd");
      work.progress({ phase: "restore", message: "fake" });
      if (request.image === "no-such-image") {
        isThere = false;
        const why = "It is in no registry.";
        throw new VmsanError({ code: "ERR_IMAGE_NOT_FOUND", message: "No such image", why });
      }
      // Until the caller goes away.
      if (request.image === "slow") await once(work.signal, "abort");
      const { env, user, workdir } = request;
      const vm = { ...find("vm"), timings: {}, defaults: { env, user, workdir } };
      return await Promise.resolve(request.image === "bare" ? { ...vm, image: undefined } : vm);
    },
    hold: (ref: string) => {
      if (!isThere) throw notFound(ref);
      return async () => await Promise.resolve();
    },
    remove: async () => {
      if (isThere) made.removed += 1;
      isThere = false;
      return await Promise.resolve();
    },
    records: { sshHostKey: async () => await Promise.resolve(Buffer.alloc(32, 7)) },
    channel: (ref: string) => {
      find(ref);
      const open: StreamOpener["open"] = async (path, signal) => {
        const stream = await guest.channel.open(path, signal);
        streams.add(stream);
        stream.once("close", () => streams.delete(stream));
        return stream;
      };
      return { open, request: guest.channel.request.bind(guest.channel) };
    },
  } as unknown as Sandboxes;
  const quiet = (): void => undefined;
  const log = { info: quiet, warn: quiet, error: quiet };
  const sleep = { channel: async (ref: string) => await Promise.resolve(sandboxes.channel(ref)) };
  const pulls: FakeDaemon["pulls"] = [];
  const extend = (app: Hono): void => {
    sshRoutes(app, sandboxes, sleep);
    pullRoute(app, pulls);
  };
  const service = { sandboxes, sleep, log, root: dir, shutdown: quiet, extend };
  const listening = await serve(service, layout.socket);
  return {
    dir,
    cut: () => {
      const open = [...streams];
      open.forEach((stream) => stream.destroy());
      return open.length;
    },
    made,
    pulls,
    close: async () => {
      await listening.close();
      await guest.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}
