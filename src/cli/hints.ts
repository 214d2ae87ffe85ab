/**
 * What to type instead of the words that people bring along from Docker and from the public vmsan.
 * A word that vmsan learns leaves this table, and the error with it (docs/docker.md is made of it).
 */

/** Words and what does their work. */
interface Hint {
  /** Commands in which the options are looked for; none: everywhere. */
  commands?: readonly string[];
  /** Options with all their dashes, or commands. */
  words: readonly string[];
  fix: string;
}

const MAKES = ["run", "create"] as const;

const OPTIONS: readonly Hint[] = [
  {
    commands: MAKES,
    words: ["--volumes-from"],
    fix: "Name each volume: `-v NAME:/path`.",
  },
  {
    commands: MAKES,
    words: ["--tmpfs"],
    fix: "Use `--mount type=tmpfs,dst=/path,tmpfs-size=64m`.",
  },
  {
    commands: ["run"],
    words: ["-d", "--detach"],
    fix: "`run` stays until its command ends. For one that goes on: `vmsan create --name NAME --from-image IMAGE`, then `vmsan exec -d NAME COMMAND`.",
  },
  {
    commands: MAKES,
    words: ["--cpus", "--cpu-shares", "--cpuset-cpus", "--cpu-quota"],
    fix: "A VM has whole processors: `--vcpus N`.",
  },
  {
    commands: MAKES,
    words: ["--publish", "--expose"],
    fix: "Use `-p, --publish-port HOST:GUEST`.",
  },
  {
    commands: MAKES,
    words: ["-P", "--publish-all"],
    fix: "Name each port: `-p, --publish-port HOST:GUEST`.",
  },
  {
    commands: [...MAKES, "exec"],
    words: ["--env-file"],
    fix: "Give each variable with `-e KEY=VALUE`.",
  },
  {
    commands: MAKES,
    words: ["--restart"],
    fix: "Nothing starts a VM again by itself: `vmsan start VM` does, for example from a systemd unit.",
  },
  {
    commands: MAKES,
    words: ["--memory-swap", "--memory-reservation", "--shm-size", "--kernel-memory"],
    fix: "The VM's memory is all of it: `-m, --memory SIZE`.",
  },
  {
    commands: MAKES,
    words: ["--hostname", "--domainname"],
    fix: "`--name NAME` is the guest's host name as well; without one it is the VM's ID.",
  },
  {
    commands: MAKES,
    words: ["--net", "--link", "--add-host", "--dns", "--mac-address"],
    fix: "VMs find each other by name in a private network (`vmsan network create NAME`, `--network NAME`); `--network-policy` and `--publish-port` say what else goes in and out.",
  },
  {
    commands: MAKES,
    words: ["--storage-opt"],
    fix: "Use `--disk SIZE`.",
  },
  {
    commands: MAKES,
    words: ["--read-only", "--ulimit", "--sysctl", "--pids-limit", "--oom-kill-disable"],
    fix: "The guest has a kernel of its own: set that inside it, for example `vmsan exec --sudo VM sysctl -w NAME=VALUE`.",
  },
  {
    commands: [...MAKES, "exec"],
    words: ["--privileged", "--cap-add", "--cap-drop", "--security-opt", "--userns", "--group-add"],
    fix: "Root in a guest is root of its own kernel and needs nothing more: `--user root`, or `exec --sudo`.",
  },
  {
    commands: MAKES,
    words: ["--device", "--gpus", "--pid", "--ipc", "--uts", "--cgroup-parent"],
    fix: "A VM shares neither devices nor namespaces with its host, so there is nothing to pass through.",
  },
  {
    commands: MAKES,
    words: ["-l"],
    fix: "Use `--label KEY=VALUE`.",
  },
  {
    commands: MAKES,
    words: ["--health-cmd", "--no-healthcheck", "--stop-signal", "--stop-timeout", "--log-driver"],
    fix: "vmsan has none of it; `vmsan wait VM ID` and `vmsan logs VM ID` look after a command of `exec -d`.",
  },
  {
    commands: MAKES,
    words: ["--cidfile"],
    fix: "`vmsan create` prints the ID, `--name NAME` gives it a name.",
  },
  {
    commands: ["create"],
    words: ["--rm"],
    fix: "`vmsan run IMAGE` makes a VM that goes with its command.",
  },
  {
    commands: ["run"],
    words: ["--from-image", "--image"],
    fix: "`run` takes the image as its first word: `vmsan run IMAGE COMMAND`.",
  },
  {
    commands: ["ps"],
    words: ["-a", "--all", "-q", "--quiet", "-l", "-n", "--filter", "-f", "--format", "--no-trunc"],
    fix: "`vmsan list` shows all VMs, stopped ones too (`--json` for programs); `vmsan ps VM` the commands in one.",
  },
  {
    commands: ["list", "ls"],
    words: ["-a", "--all", "-q", "--quiet", "--filter", "--format"],
    fix: "`vmsan list` shows all VMs, stopped ones too; `--json` is for programs.",
  },
  {
    commands: ["logs"],
    words: ["-n", "-t", "--timestamps", "--until", "--details"],
    fix: "Use `-f`, `--tail LINES` and `--since TIME`.",
  },
  {
    commands: ["stop", "restart"],
    words: ["-t", "--time", "--timeout", "-s", "--signal"],
    fix: "`vmsan stop VM` gives the guest 10 seconds; `vmsan rm -f VM` gives none.",
  },
  {
    commands: ["remove", "rm"],
    words: ["-v", "--volumes"],
    fix: "`vmsan rm VM` takes its disk along.",
  },
  {
    commands: ["login"],
    words: ["-p", "--password"],
    fix: "A password on a command line can be read by others: use `--password-stdin`.",
  },
  { words: ["-v", "-V"], fix: "Use `vmsan --version`." },
];

const COMMANDS: readonly Hint[] = [
  { words: ["images"], fix: "Use `vmsan image ls`." },
  { words: ["pull"], fix: "Use `vmsan image pull IMAGE`." },
  { words: ["rmi"], fix: "Use `vmsan image rm IMAGE`." },
  { words: ["tag"], fix: "Use `vmsan image tag IMAGE NAME`." },
  { words: ["save"], fix: "Use `vmsan image save IMAGE -o FILE`." },
  {
    words: ["load", "import"],
    fix: "Use `vmsan image load -i FILE`, or run it as it is: `vmsan run docker-archive:FILE`, `oci-archive:FILE`, `rootfs:FILE`.",
  },
  { words: ["history"], fix: "Use `vmsan image history IMAGE`." },
  { words: ["push"], fix: "Use `vmsan image push IMAGE [DESTINATION]`." },
  {
    words: ["buildx", "builder"],
    fix: "Use `vmsan build`, and `vmsan build prune` for its cache.",
  },
  {
    words: ["checkpoint"],
    fix: "Use `vmsan snapshot create VM`, or `vmsan commit VM IMAGE` for an image of what it has changed.",
  },
  {
    words: ["diff"],
    fix: "Use `vmsan image diff VM`.",
  },
  {
    words: ["export"],
    fix: "Use `vmsan download VM /path ./dir`, or `vmsan exec VM tar -C / -c PATH >FILE`.",
  },
  {
    words: ["top"],
    fix: "Use `vmsan stats VM` for what it uses, `vmsan ps VM` for its commands, `vmsan exec VM top -b -n 1` for its processes.",
  },
  { words: ["restart"], fix: "Use `vmsan stop VM && vmsan start VM`." },
  { words: ["unpause"], fix: "Use `vmsan resume VM`." },
  {
    words: ["attach"],
    fix: "Use `vmsan connect VM` for a shell, `vmsan logs VM ID -f` for a command of `exec -d`.",
  },
  { words: ["port"], fix: "Use `vmsan inspect VM` (`ports`), or `vmsan port-forward`." },
  { words: ["rename"], fix: "A name is given when the VM is made: `vmsan create --name NAME`." },
  { words: ["version"], fix: "Use `vmsan --version`." },
  {
    words: ["info", "system"],
    fix: "Use `vmsan doctor`, `vmsan list`, `vmsan stats`, `vmsan image prune` and `vmsan daemon logs`.",
  },
  {
    words: ["container"],
    fix: "Use the commands themselves: `vmsan list`, `vmsan create`, `vmsan rm` …",
  },
  {
    words: ["compose", "stack", "swarm", "service"],
    fix: "vmsan runs single VMs: `vmsan create --name NAME --from-image IMAGE`.",
  },
  {
    words: ["search"],
    fix: "Look on the registry's own site; `vmsan run` takes the names that are found there.",
  },
];

/** Missing arguments, by the command that they are missing to. */
const MISSING: Record<string, string> = {
  ps: "`vmsan list` shows all VMs; `vmsan ps VM` the commands in one.",
  kill: "`vmsan kill VM ID` signals a command of `exec -d`; a VM is ended by `vmsan stop VM`, at once by `vmsan rm -f VM`.",
  wait: "`vmsan wait VM ID` waits for a command of `exec -d`; `vmsan ps VM` shows their IDs.",
};

/** The option that a token of the command line is: without value, of a cluster the one refused. */
function optionOf(token: string): string {
  return token.startsWith("--") ? (token.split("=", 1)[0] ?? token) : token.slice(0, 2);
}

/**
 * What to do instead of what was not understood; undefined when there is nothing to say but help.
 * @param said commander's message
 * @param args the command line behind `vmsan`
 */
export function hintFor(said: string, args: readonly string[]): string | undefined {
  const command = args.find((word) => !word.startsWith("-"));
  const option = /unknown option '([^']+)'/.exec(said)?.[1];
  if (option !== undefined) {
    const name = optionOf(option);
    return OPTIONS.find(
      ({ words, commands }) =>
        words.includes(name) &&
        (commands === undefined ? command === undefined : commands.includes(command ?? "")),
    )?.fix;
  }
  const unknown = /unknown command '([^']+)'/.exec(said)?.[1];
  if (unknown !== undefined) return COMMANDS.find(({ words }) => words.includes(unknown))?.fix;
  return said.includes("missing required argument") ? MISSING[command ?? ""] : undefined;
}
