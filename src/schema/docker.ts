/**
 * Bodies of the Docker Engine API, as far as they mean something here. Real clients send absent fields
 * as null, empty or left out; what is not named is kept by whoever echoes the body, and not read.
 */
import * as z from "zod";

const text = z.string().max(65_536);
const bool = z.boolean().nullish();
const count = z.number().nullish();
const texts = z.array(text).max(10_000).nullish();
const map = z.record(text, text).nullish();
/** A command line: a list of words, or one. */
const words = z.union([z.array(text).max(10_000), text]).nullish();
/** Keys of a map whose values say nothing. */
const keys = z.record(text, z.unknown()).nullish();

const portBindings = z
  .record(
    text,
    z
      .array(z.object({ HostIp: text.nullish(), HostPort: text.nullish() }))
      .max(100)
      .nullish(),
  )
  .nullish();

const mount = z.object({
  Type: text,
  Source: text.nullish(),
  Target: text,
  ReadOnly: bool,
  VolumeOptions: z
    .object({
      NoCopy: bool,
      Labels: map,
      Subpath: text.nullish(),
      DriverConfig: z.object({ Name: text.nullish(), Options: map }).nullish(),
    })
    .nullish(),
  BindOptions: z.looseObject({ CreateMountpoint: bool, Propagation: text.nullish() }).nullish(),
  TmpfsOptions: z.looseObject({ SizeBytes: count, Mode: count }).nullish(),
});

/** A health check; times are nanoseconds. */
const healthSchema = z.object({
  Test: texts,
  Interval: count,
  Timeout: count,
  StartPeriod: count,
  StartInterval: count,
  Retries: count,
});

/** When a container is started again. */
const restartPolicy = z.object({ Name: text.nullish(), MaximumRetryCount: count }).nullish();

const hostConfig = z.looseObject({
  Binds: texts,
  Mounts: z.array(mount).max(100).nullish(),
  Tmpfs: map,
  NetworkMode: text.nullish(),
  PortBindings: portBindings,
  PublishAllPorts: bool,
  RestartPolicy: restartPolicy,
  AutoRemove: bool,
  Memory: count,
  NanoCpus: count,
  CpuPeriod: count,
  CpuQuota: count,
  Dns: texts,
  DnsSearch: texts,
  DnsOptions: texts,
  ExtraHosts: texts,
  PidMode: text.nullish(),
  IpcMode: text.nullish(),
  UTSMode: text.nullish(),
  UsernsMode: text.nullish(),
  CgroupnsMode: text.nullish(),
  Isolation: text.nullish(),
  CgroupParent: text.nullish(),
  Devices: z.array(z.unknown()).nullish(),
  DeviceRequests: z.array(z.unknown()).nullish(),
  VolumesFrom: texts,
  Links: texts,
  GroupAdd: z
    .array(text.regex(/^[\w.][\w.-]{0,99}$/))
    .max(100)
    .nullish(),
  CapDrop: texts,
  SecurityOpt: texts,
  ReadonlyRootfs: bool,
  ShmSize: count,
  Ulimits: z
    .array(z.object({ Name: text, Soft: z.int(), Hard: z.int() }))
    .max(32)
    .nullish(),
  Sysctls: map,
  StorageOpt: map,
  Runtime: text.nullish(),
  VolumeDriver: text.nullish(),
  ConsoleSize: z.array(z.number()).nullish(),
  LogConfig: z.object({ Type: text.nullish(), Config: map }).nullish(),
});

/** One network of a container. */
export const endpointSchema = z.looseObject({
  Aliases: texts,
  NetworkID: text.nullish(),
  MacAddress: text.nullish(),
  Links: texts,
  DriverOpts: map,
  IPAMConfig: z.looseObject({ IPv4Address: text.nullish(), IPv6Address: text.nullish() }).nullish(),
});

/** The body of `POST /containers/create`. */
export const containerSchema = z.looseObject({
  Hostname: text.nullish(),
  Domainname: text.nullish(),
  User: text.nullish(),
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  Tty: bool,
  OpenStdin: bool,
  StdinOnce: bool,
  Env: texts,
  Cmd: words,
  Entrypoint: words,
  Image: text,
  Labels: map,
  Volumes: keys,
  WorkingDir: text.nullish(),
  NetworkDisabled: bool,
  MacAddress: text.nullish(),
  ExposedPorts: keys,
  StopSignal: text.nullish(),
  StopTimeout: count,
  Healthcheck: healthSchema.nullish(),
  HostConfig: hostConfig.nullish(),
  NetworkingConfig: z
    .object({ EndpointsConfig: z.record(text, endpointSchema.nullish()).nullish() })
    .nullish(),
});

/** What {@link containerSchema} gives. */
export type ContainerBody = z.infer<typeof containerSchema>;

/** The body of `POST /containers/ID/exec`. */
export const execSchema = z.object({
  AttachStdin: bool,
  AttachStdout: bool,
  AttachStderr: bool,
  Tty: bool,
  Detach: bool,
  DetachKeys: text.nullish(),
  Privileged: bool,
  Env: texts,
  Cmd: words,
  User: text.nullish(),
  WorkingDir: text.nullish(),
  ConsoleSize: z.array(z.number()).nullish(),
});

/** The body of `POST /exec/ID/start`. */
export const execStartSchema = z.object({
  Detach: bool,
  Tty: bool,
  ConsoleSize: z.array(z.number()).nullish(),
});

/** The body of `POST /containers/ID/update`. */
export const containerUpdateSchema = z.looseObject({
  Memory: count,
  NanoCpus: count,
  CpuPeriod: count,
  CpuQuota: count,
  RestartPolicy: restartPolicy,
});

/** The body of `POST /volumes/create`. */
export const volumeSchema = z.object({
  Name: text.nullish(),
  Driver: text.nullish(),
  DriverOpts: map,
  Labels: map,
});

/** The body of `POST /networks/create`. */
export const networkSchema = z.looseObject({
  Name: text,
  Driver: text.nullish(),
  Internal: bool,
  Attachable: bool,
  Ingress: bool,
  EnableIPv6: bool,
  IPAM: z
    .looseObject({
      Config: z
        .array(
          z.looseObject({
            Subnet: text.nullish(),
            Gateway: text.nullish(),
            IPRange: text.nullish(),
            AuxiliaryAddresses: map,
          }),
        )
        .nullish(),
    })
    .nullish(),
  Options: map,
  Labels: map,
});

/** The body of `POST /networks/ID/connect` and of `…/disconnect`. */
export const networkMemberSchema = z.object({
  Container: text,
  EndpointConfig: endpointSchema.nullish(),
});

/** The body of `POST /auth`, and the header with a registry's credentials. */
export const authSchema = z.object({
  username: text.nullish(),
  password: text.nullish(),
  serveraddress: text.nullish(),
  identitytoken: text.nullish(),
});

const config = z.object({
  Hostname: text,
  Domainname: text,
  User: text,
  AttachStdin: z.boolean(),
  AttachStdout: z.boolean(),
  AttachStderr: z.boolean(),
  ExposedPorts: z.record(text, z.unknown()),
  Tty: z.boolean(),
  OpenStdin: z.boolean(),
  StdinOnce: z.boolean(),
  /** The image's and the container's own. */
  Env: z.array(text),
  Cmd: z.array(text).nullable(),
  Entrypoint: z.array(text).nullable(),
  Image: text,
  Labels: z.record(text, text),
  Volumes: z.record(text, z.unknown()).nullable(),
  WorkingDir: text,
  StopSignal: text.optional(),
  StopTimeout: z.number().optional(),
  Healthcheck: healthSchema.optional(),
});

const mountPoint = z.object({
  Type: z.enum(["bind", "volume", "tmpfs"]),
  Name: text.optional(),
  Source: text,
  Destination: text,
  Driver: text.optional(),
  Mode: text,
  RW: z.boolean(),
  Propagation: text,
  NoCopy: z.boolean().optional(),
  /** What is shown of a volume. */
  Part: z.string().optional(),
  /** It is the engine's socket: the container is given a narrower one (reaper/). */
  Engine: z.boolean().optional(),
});

/** One container as it is stored. */
export const containerRecordSchema = z.object({
  schema: z.literal(1),
  id: z.string().regex(/^[0-9a-f]{64}$/),
  name: text,
  createdAt: text,
  image: z.object({ name: text, digest: text, id: text }),
  config,
  hostConfig: z.looseObject({}),
  /** Of the request alone: what a VM takes besides the image's. */
  env: z.array(text),
  mounts: z.array(mountPoint),
  ports: z.array(
    z.object({
      protocol: z.enum(["tcp", "udp"]),
      hostAddress: text,
      hostPort: z.int(),
      guestPort: z.int(),
    }),
  ),
  networks: z.record(
    text,
    z.object({
      /** As they were asked for; the container's own name comes besides. */
      aliases: z.array(text),
      id: text,
      /** No way out of it. */
      internal: z.boolean(),
      /** The one that was asked for. */
      address: text.optional(),
      /** Shown, and nothing else: there is one driver. */
      driverOpts: z.record(text, text).optional(),
    }),
  ),
  vcpus: z.int(),
  memMib: z.int(),
  /** ID of its VM, from the moment there is one. */
  vm: text.optional(),
  /** The main process's stream in the guest. */
  run: text.optional(),
  state: z.object({
    status: z.enum(["created", "running", "paused", "restarting", "exited", "dead"]),
    exitCode: z.int(),
    error: text,
    oomKilled: z.boolean(),
    pid: z.int(),
    startedAt: text,
    finishedAt: text,
  }),
  /** What its health check has found, if it has one that has run. */
  health: z
    .object({
      Status: z.enum(["starting", "healthy", "unhealthy"]),
      FailingStreak: z.int(),
      Log: z.array(
        z.object({ Start: text, End: text, ExitCode: z.int(), Output: z.string().max(65_536) }),
      ),
    })
    .optional(),
  restartCount: z.int(),
  /** A user has stopped it: only a user starts it again. */
  stoppedByHand: z.boolean(),
});

/** What {@link containerRecordSchema} gives. */
export type ContainerRecord = z.infer<typeof containerRecordSchema>;
/** A container's configuration with the image's taken in. */
export type ContainerConfig = z.infer<typeof config>;
/** What is mounted in a container, as clients see it. */
export type MountPoint = z.infer<typeof mountPoint>;
/** A health check. */
export type HealthConfig = z.infer<typeof healthSchema>;
/** {@link containerSchema}'s `HostConfig`. */
export type HostConfig = z.infer<typeof hostConfig>;

/** A map of strings, as queries have it in JSON. */
export const stringMapSchema = z.record(text, z.string().max(65_536));

/** Values of a build's ARGs: null for one that is named and has no value at the client. */
export const buildArgsSchema = z.record(text, z.string().max(65_536).nullable());

/** What is kept of a network's request that a private network has no place for. */
export const networkExtraSchema = z.object({
  Internal: z.boolean(),
  Attachable: z.boolean(),
  Options: z.record(text, text),
});
