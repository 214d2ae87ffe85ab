/** Routes about the engine itself. */
import { arch, cpus, hostname, release, totalmem } from "node:os";
import { hostArchitecture } from "../../../util/hosts/architecture.ts";
import { packageVersion } from "../../../util/package.ts";
import { EVENT_FILTERS, isWanted } from "../events.ts";
import type { DockerEvent } from "../events.ts";
import { parseMoment } from "../http/moments.ts";
import { bodyOf, reply } from "../http/route.ts";
import type { Call, Route } from "../http/route.ts";
import { API_VERSION, ENGINE_HEADERS, MIN_API_VERSION, beginStream } from "../http/wire.ts";
import { summaryOf } from "../images/view.ts";
import { checkCredentials } from "../images/transfer.ts";
import { sizesOf } from "../containers/size.ts";
import { summary } from "../containers/view.ts";
import { volumeView } from "./volumes.ts";

/** Whether the engine is there, and which version it speaks. */
async function ping({ request, response }: Call): Promise<void> {
  const head = request.method === "HEAD";
  response.writeHead(200, {
    ...ENGINE_HEADERS,
    "Cache-Control": "no-cache, no-store, must-revalidate",
    Pragma: "no-cache",
    "Content-Type": "text/plain; charset=utf-8",
    "Content-Length": head ? "0" : "2",
  });
  response.end(head ? undefined : "OK");
  await Promise.resolve();
}

async function version(call: Call): Promise<void> {
  const architecture = hostArchitecture();
  const common = {
    ApiVersion: API_VERSION,
    MinAPIVersion: MIN_API_VERSION,
    GitCommit: "",
    GoVersion: "",
    Os: "linux",
    Arch: architecture,
    KernelVersion: release(),
    BuildTime: "",
  };
  reply(call, {
    Platform: { Name: "vmsan: each container is a microVM" },
    Version: packageVersion(),
    ...common,
    Components: [
      { Name: "Engine", Version: packageVersion(), Details: { ...common, Experimental: "false" } },
    ],
  });
  await Promise.resolve();
}

async function info(call: Call): Promise<void> {
  const { engine } = call;
  const { containers } = engine;
  const counted = (status: string): number =>
    containers.filter(({ record }) => record.state.status === status).length;
  const running = counted("running");
  const paused = counted("paused");
  const images = await engine.catalogue.all();
  reply(call, {
    ID: "vmsan",
    Containers: containers.length,
    ContainersRunning: running,
    ContainersPaused: paused,
    ContainersStopped: containers.length - running - paused,
    Images: images.length,
    Driver: "vmsan",
    DriverStatus: [["Isolation", "each container is a microVM"]],
    SystemStatus: null,
    Plugins: {
      Volume: ["local"],
      Network: ["bridge", "null"],
      Authorization: null,
      Log: ["json-file", "local", "none"],
    },
    MemoryLimit: true,
    SwapLimit: false,
    CpuCfsPeriod: false,
    CpuCfsQuota: true,
    CPUShares: false,
    CPUSet: false,
    PidsLimit: false,
    IPv4Forwarding: true,
    Debug: false,
    OomKillDisable: false,
    NFd: 0,
    NGoroutines: 0,
    SystemTime: new Date().toISOString(),
    LoggingDriver: "json-file",
    CgroupDriver: "none",
    CgroupVersion: "2",
    NEventsListener: engine.events.listening,
    KernelVersion: release(),
    OperatingSystem: "vmsan",
    OSVersion: "",
    OSType: "linux",
    Architecture: arch() === "x64" ? "x86_64" : "aarch64",
    IndexServerAddress: "",
    RegistryConfig: null,
    NCPU: cpus().length,
    MemTotal: totalmem(),
    GenericResources: null,
    DockerRootDir: engine.directory,
    HttpProxy: "",
    HttpsProxy: "",
    NoProxy: "",
    Name: hostname(),
    Labels: [],
    ExperimentalBuild: false,
    ServerVersion: packageVersion(),
    Runtimes: { vmsan: { path: "vmsan" } },
    DefaultRuntime: "vmsan",
    Swarm: { LocalNodeState: "inactive", ControlAvailable: false, RemoteManagers: null },
    LiveRestoreEnabled: true,
    Isolation: "",
    InitBinary: "",
    SecurityOptions: ["name=microvm"],
    Warnings: null,
  });
}

/** What has happened, and what does until a moment or until the client goes. */
async function events(call: Call): Promise<void> {
  const { query, response, engine } = call;
  const filters = query.filters().only(EVENT_FILTERS);
  const since = parseMoment(query.text("since"));
  const until = parseMoment(query.text("until"));
  beginStream(response, "application/json");
  const send = (event: DockerEvent): void => {
    if (isWanted(event, filters)) response.write(`${JSON.stringify(event)}\n`);
  };
  if (since !== undefined) {
    for (const event of engine.events.between(since, until)) send(event);
  }
  const left = until === undefined ? undefined : until * 1000 - Date.now();
  if (left !== undefined && left <= 0) {
    response.end();
    return;
  }
  const stop = engine.events.listen(send);
  await new Promise<void>((resolve) => {
    const timer = left === undefined ? undefined : setTimeout(resolve, Math.min(left, 2 ** 31 - 1));
    response.once("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
  stop();
  response.end();
}

/** What all of it occupies. */
async function diskUse(call: Call): Promise<void> {
  const { engine } = call;
  const images = await engine.catalogue.all();
  const { blobBytes } = await engine.vmsan.images.list();
  const volumes = await engine.vmsan.volumes.list();
  const { containers } = engine;
  const sizes = await sizesOf(engine, containers);
  reply(call, {
    LayersSize: blobBytes,
    Images: images.map((image) =>
      summaryOf(image, containers.filter(({ record }) => record.image.id === image.id).length),
    ),
    Containers: containers.map((one, index) => ({ ...summary(one), ...sizes[index] })),
    Volumes: volumes.map(volumeView),
    BuildCache: [],
  });
}

/** The table. */
export const systemRoutes: readonly Route[] = [
  { method: "GET", path: "/_ping", says: "works", run: ping },
  { method: "HEAD", path: "/_ping", says: "works", run: ping },
  { method: "GET", path: "/version", says: "works", run: version },
  { method: "GET", path: "/info", says: "works", run: info },
  {
    method: "GET",
    path: "/events",
    says: "differs",
    note: "the last 1024 are kept, while the gateway runs",
    run: events,
  },
  { method: "GET", path: "/system/df", says: "works", run: diskUse },
  {
    method: "POST",
    path: "/auth",
    says: "differs",
    note: "credentials that a registry takes are kept on the host as well, as `vmsan login` keeps them",
    run: async (call) => await checkCredentials(call, await bodyOf(call)),
  },
];
