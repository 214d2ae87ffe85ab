/**
 * Every flag of `docker run`, and what it comes to. docs/docker.md is made of this table; test/docker/flags.test.ts compares it with
 * the command line's own list, and tries each row that has an example: no flag can be left out, and no row can say what is not so.
 */

/** What a flag comes to. */
export type FlagSays = "works" | "differs" | "no effect" | "warns" | "refused" | "the client's";

/** One flag. */
export interface RunFlag {
  flag: string;
  says: FlagSays;
  /** How it differs, or why it is refused. */
  note?: string;
  /** Words for a trial of it. */
  example?: readonly string[];
}

const of =
  (says: FlagSays) =>
  (flag: string, note = "", ...example: string[]): RunFlag => ({
    flag,
    says,
    ...(note === "" ? {} : { note }),
    ...(example.length === 0 ? {} : { example }),
  });

const works = of("works");
const differs = of("differs");
const idle = of("no effect");
const warns = of("warns");
const refused = of("refused");
const client = of("the client's");

const OWN_KERNEL = "a microVM has a kernel of its own, and shares none of it";
const NO_DEVICES = "a guest does not see the host's devices";
const BOUNDS = "a microVM is bounded by its memory and its processors";
const ALL_RIGHTS = "root in a guest has all rights there";
const WINDOWS = "of Windows";

/** The flags, by name. */
export const runFlags: readonly RunFlag[] = [
  works("--add-host", "", "--add-host", "db:192.0.2.1"),
  works("--annotation", "shown by `inspect`", "--annotation", "a=b"),
  works("--attach", "", "--attach", "stdout"),
  warns("--blkio-weight", BOUNDS, "--blkio-weight", "300"),
  warns("--blkio-weight-device", BOUNDS, "--blkio-weight-device", "/dev/null:300"),
  idle("--cap-add", ALL_RIGHTS, "--cap-add", "NET_ADMIN"),
  warns(
    "--cap-drop",
    "what keeps a microVM in is its hardware, not its kernel",
    "--cap-drop",
    "ALL",
  ),
  refused(
    "--cgroup-parent",
    "vmsan keeps each VM in a control group of its own",
    "--cgroup-parent",
    "/x",
  ),
  refused("--cgroupns", `\`host\`: ${OWN_KERNEL}`, "--cgroupns", "host"),
  client("--cidfile"),
  idle("--cpu-count", WINDOWS),
  idle("--cpu-percent", WINDOWS),
  differs("--cpu-period", "with `--cpu-quota`: whole processors", "--cpu-period", "100000"),
  differs("--cpu-quota", "whole processors, rounded up", "--cpu-quota", "150000"),
  warns("--cpu-rt-period", BOUNDS, "--cpu-rt-period", "1000"),
  warns("--cpu-rt-runtime", BOUNDS, "--cpu-rt-runtime", "1000"),
  warns("--cpu-shares", BOUNDS, "--cpu-shares", "512"),
  differs("--cpus", "whole processors: 1.5 is two", "--cpus", "1.5"),
  warns("--cpuset-cpus", BOUNDS, "--cpuset-cpus", "0"),
  warns("--cpuset-mems", BOUNDS, "--cpuset-mems", "0"),
  works("--detach"),
  works("--detach-keys"),
  refused("--device", NO_DEVICES, "--device", "/dev/null"),
  warns("--device-cgroup-rule", NO_DEVICES, "--device-cgroup-rule", "c 1:3 r"),
  warns("--device-read-bps", BOUNDS, "--device-read-bps", "/dev/null:1mb"),
  warns("--device-read-iops", BOUNDS, "--device-read-iops", "/dev/null:100"),
  warns("--device-write-bps", BOUNDS, "--device-write-bps", "/dev/null:1mb"),
  warns("--device-write-iops", BOUNDS, "--device-write-iops", "/dev/null:100"),
  client("--disable-content-trust"),
  warns("--dns", "names are resolved by the network policy's own server", "--dns", "192.0.2.53"),
  works("--dns-option", "", "--dns-option", "ndots:2"),
  works("--dns-search", "", "--dns-search", "example.org"),
  works("--domainname", "", "--domainname", "example.org"),
  works("--entrypoint", "", "--entrypoint", "sh"),
  works("--env", "", "--env", "A=1"),
  client("--env-file"),
  works("--expose", "", "--expose", "90"),
  refused("--gpus", NO_DEVICES, "--gpus", "all"),
  works("--group-add", "", "--group-add", "20"),
  works("--health-cmd", "", "--health-cmd", "true"),
  works("--health-interval", "", "--health-interval", "1s"),
  works("--health-retries", "", "--health-retries", "2"),
  works("--health-start-interval", "", "--health-start-interval", "1s"),
  works("--health-start-period", "", "--health-start-period", "1s"),
  works("--health-timeout", "", "--health-timeout", "1s"),
  client("--help"),
  works("--hostname", "", "--hostname", "db"),
  idle("--init", "a guest's init is vmsan's agent, which reaps what is left", "--init"),
  works("--interactive", "", "--interactive"),
  idle("--io-maxbandwidth", WINDOWS),
  idle("--io-maxiops", WINDOWS),
  works("--ip", "on networks that users have made"),
  refused("--ip6", "networks that users make are IPv4", "--network", "net", "--ip6", "2001:db8::7"),
  refused("--ipc", `\`host\`, \`container:…\`: ${OWN_KERNEL}`, "--ipc", "host"),
  refused("--isolation", "there is the default one", "--isolation", "process"),
  idle("--kernel-memory", "Docker has given it up"),
  works("--label", "", "--label", "a=b"),
  client("--label-file"),
  refused(
    "--link",
    "on the default network; on others names lead to each other, and another name is warned of",
    "--link",
    "other:o",
  ),
  idle("--link-local-ip"),
  differs("--log-driver", "json-file, local and none", "--log-driver", "local"),
  works("--log-opt", "max-size, max-file", "--log-opt", "max-size=1m"),
  warns("--mac-address", "a VM's network card has vmsan's", "--mac-address", "02:00:00:00:00:07"),
  differs("--memory", "the guest's kernel has its share of it; at least 128m", "--memory", "256m"),
  warns("--memory-reservation", BOUNDS, "--memory-reservation", "200m"),
  idle("--memory-swap", "a guest has no swap", "--memory-swap", "256m"),
  idle("--memory-swappiness", "a guest has no swap", "--memory-swappiness", "10"),
  differs(
    "--mount",
    "binds, volumes, tmpfs; what is bound is shared, a volume too once several containers have it",
    "--mount",
    "type=tmpfs,dst=/t",
  ),
  works("--name", "", "--name", "flags"),
  differs("--network", "`host`, `container:…` are refused", "--network", "net"),
  works("--network-alias", "", "--network-alias", "al"),
  works("--no-healthcheck"),
  warns("--oom-kill-disable", BOUNDS, "--oom-kill-disable"),
  idle("--oom-score-adj", BOUNDS, "--oom-score-adj", "1"),
  refused("--pid", `\`host\`, \`container:…\`: ${OWN_KERNEL}`, "--pid", "host"),
  warns("--pids-limit", BOUNDS, "--pids-limit", "100"),
  works("--platform", "", "--platform", "linux"),
  idle("--privileged", ALL_RIGHTS, "--privileged"),
  differs("--publish", "on 127.0.0.1 unless an address is given", "--publish", "80"),
  differs("--publish-all", "on 127.0.0.1", "--publish-all"),
  client("--pull"),
  client("--quiet"),
  works("--read-only", "", "--read-only"),
  works("--restart", "", "--restart", "on-failure:2"),
  works("--rm"),
  differs("--runtime", "there is one: `runc` is taken as it", "--runtime", "runc"),
  warns(
    "--security-opt",
    "what keeps a microVM in is its hardware, not its kernel",
    "--security-opt",
    "no-new-privileges",
  ),
  works("--shm-size", "", "--shm-size", "64m"),
  client("--sig-proxy"),
  works("--stop-signal", "", "--stop-signal", "INT"),
  works("--stop-timeout", "", "--stop-timeout", "3"),
  differs("--storage-opt", "`size=` is the disk's", "--storage-opt", "size=5"),
  works("--sysctl", "", "--sysctl", "net.ipv4.ip_forward=1"),
  works("--tmpfs", "", "--tmpfs", "/scratch"),
  works("--tty", "", "--tty"),
  works("--ulimit", "", "--ulimit", "nofile=100:200"),
  refused("--use-api-socket", "an engine's socket is not given to guests"),
  works("--user", "", "--user", "7:8"),
  idle("--userns", "a guest's users are its own", "--userns", "host"),
  refused("--uts", `\`host\`: ${OWN_KERNEL}`, "--uts", "host"),
  differs("--volume", "as `--mount`", "--volume", "/anonymous"),
  refused("--volume-driver", "volumes are local", "--volume-driver", "nfs"),
  refused("--volumes-from", "name the volumes", "--volumes-from", "other"),
  works("--workdir", "", "--workdir", "/tmp"),
];
