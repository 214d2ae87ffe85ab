/** The SDK: every public export, nothing else. */
export { Vmsan } from "./client/vmsan.ts";
export type { ClusterOptions, VmsanOptions } from "./client/vmsan.ts";
export type { DaemonInfo, WorkOptions } from "./client/daemon.ts";
export { Vm } from "./client/vm.ts";
export type { ExecOptions, ExecOutput } from "./client/guest/commands.ts";
export type { CommitOptions } from "./client/vm.ts";
export { Builds } from "./client/builds/builds.ts";
export type { BuildOptions } from "./client/builds/builds.ts";
export { ImageTemplate as Image } from "./client/builds/image-template.ts";
export { Images } from "./client/images.ts";
export { Kernels } from "./client/kernels.ts";
export { Snapshots } from "./client/snapshots.ts";
export { Volumes } from "./client/volumes.ts";
export { PrivateNetworks } from "./client/private-networks.ts";
export type { PlaceOptions } from "./client/private-networks.ts";
export type {
  Membership,
  MemberView,
  PrivateNetworkPrune,
  PrivateNetworkView,
} from "./model/private-network.ts";
export type { VolumePrune, VolumeView } from "./model/volume.ts";
export type { Mount } from "./model/mount.ts";
export type { StartOptions, UpdateOptions } from "./client/lives.ts";
export type { SnapshotOptions } from "./client/snapshots.ts";
export type { CloneOptions } from "./client/clone-options.ts";
export type {
  DiskOptions,
  ImageDetails,
  LoginOptions,
  PullOptions,
  PushOptions,
} from "./client/images.ts";
export type { CreateOptions, NetworkOptions } from "./client/options.ts";
export type { SecretOptions } from "./client/secrets/secrets.ts";
export type { EventOptions } from "./client/events.ts";
export type { EventFilter, EventType, VmsanEvent } from "./model/event.ts";
export type { MetricFamily, MetricSample } from "./model/metrics.ts";
export { ratesOf } from "./model/stats.ts";
export type { GuestUse, HostUse, VmRates, VmSample } from "./model/stats.ts";
export { GuestStream } from "./agent/streams.ts";
export type { AttachOptions, Gap, StreamOptions } from "./agent/streams.ts";
export type { StreamExit, StreamInfo } from "./agent/spec.ts";
export {
  forgetStream,
  listStreams,
  signalStream,
  streamInfo,
  waitStream,
} from "./agent/commands.ts";
export type { CopyOptions } from "./agent/copy.ts";
export {
  listFiles,
  makeDirectory,
  moveFile,
  removeFile,
  statFile,
  watchFiles,
} from "./agent/files.ts";
export type { WriteOptions } from "./agent/file-stream.ts";
export type { FileEntry, WatchEvent } from "./agent/files.ts";
export { forwardToGuest, forwardToHost } from "./agent/ports.ts";
export type { Endpoint, ForwardOptions, Forwarding } from "./agent/ports.ts";
export { VmsanError } from "./model/errors.ts";
export type { ErrorInfo } from "./model/errors.ts";
export type { BlobPeers, PullPolicy, SnapshotView, VmView, WarmReply } from "./model/api.ts";
export type {
  CommitReport,
  DiffEntry,
  HistoryEntry,
  ImageList,
  ImageView,
  PruneReport,
  PushReport,
} from "./model/api/images.ts";
export type { BuildPrune, BuildReport } from "./model/api/builds.ts";
export type { KernelList, KernelView } from "./model/api/kernels.ts";
export type { DiskSummary } from "./model/disk.ts";
export type { ImageConfig } from "./model/image.ts";
export type { GuestNetwork, NetworkPolicy, PublishedPort } from "./model/policy.ts";
export type { SecretPlace, SecretRequest, SecretView } from "./model/secret.ts";
export type { ProgressEvent, ProgressSink } from "./model/progress.ts";
export type { Accelerator, DriverName, IsolationReport, VmStatus } from "./model/vm.ts";
export { planSetup, runDoctor, runSetup } from "./setup/sdk.ts";
export type { HostDoctorOptions, HostSetupOptions } from "./setup/sdk.ts";
export type { PlannedItem, SetupItem, SetupReport } from "./setup/setup.ts";
export type { CheckResult, DoctorReport } from "./model/doctor.ts";
