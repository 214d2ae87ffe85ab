/**
 * words/: what is said of words that the command line does not know, and examples of those that it does.
 *
 * habits.ts: words that people bring along from Docker, ssh, other sandboxes and the public vmsan, and what to type instead.
 * A word that vmsan learns leaves these tables, and the error with it (docs/docker.md is made of them).
 */

/** Words and what does their work. */
export interface Hint {
  /** Commands in which the options are looked for; none: everywhere. */
  commands?: readonly string[];
  /** Options with all their dashes, or commands. */
  words: readonly string[];
  fix: string;
}

const MAKES = ["run", "create"] as const;

/** Options that are none. */
export const OPTIONS: readonly Hint[] = [
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
    words: ["--cpus", "--cpu", "-c", "--cpu-shares", "--cpuset-cpus", "--cpu-quota"],
    fix: "A VM has whole processors: `--vcpus N`.",
  },
  {
    commands: MAKES,
    words: ["--publish", "--expose", "--port", "--ports"],
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
    words: ["--read-only", "--ulimit", "--pids-limit", "--oom-kill-disable"],
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
    commands: MAKES,
    words: ["--ram", "--mem", "--vm-memory"],
    fix: "Use `-m, --memory SIZE`.",
  },
  {
    commands: [...MAKES, "update"],
    words: ["--size", "--disk-size", "--volume-size"],
    fix: "Use `--disk SIZE`; memory is `--memory SIZE`, processors `--vcpus N`.",
  },
  {
    commands: [...MAKES, "fork", "network", "build"],
    words: ["--policy"],
    fix: "Use `--network-policy allow-all|deny-all|custom`.",
  },
  {
    commands: [...MAKES, "fork", "network", "build"],
    words: ["--allow-domain", "--allowed-domains", "--allow-net", "--allow-cidr", "--deny-cidr"],
    fix: "Use `--allowed-domain NAME`, `--allowed-cidr CIDR`, `--denied-cidr CIDR`.",
  },
  {
    commands: ["create"],
    words: ["--image", "-i", "--template"],
    fix: "Use `--from-image IMAGE`, `--runtime NAME` or `--snapshot NAME`.",
  },
  {
    commands: ["create"],
    words: ["-d", "--detach", "-t", "--tty", "-it"],
    fix: "A VM that is made stays: `vmsan exec -d VM COMMAND` and `vmsan connect VM` work in it.",
  },
  {
    commands: ["create"],
    words: ["--entrypoint"],
    fix: "Nothing of the image is started: `vmsan exec VM COMMAND`, or `vmsan run --entrypoint COMMAND IMAGE`.",
  },
  {
    commands: ["run"],
    words: ["--from-image", "--image", "--runtime"],
    fix: "`run` takes the image as its first word: `vmsan run IMAGE COMMAND`.",
  },
  {
    commands: ["cp", "upload", "download"],
    words: ["-r", "-R", "-a", "-p", "--recursive", "--archive"],
    fix: "Leave it out: directories are copied with all that is in them, with modes and times.",
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
    words: ["-t", "--timestamps", "--until", "--details"],
    fix: "Use `-f`, `--tail LINES` and `--since TIME`.",
  },
  {
    commands: ["stop"],
    words: ["--timeout", "-s", "--signal", "-f", "--force"],
    fix: "`vmsan stop -t SECONDS VM` says how long the guest has; `vmsan rm -f VM` gives it none.",
  },
  {
    commands: ["remove", "rm", "delete"],
    words: ["-v", "--volumes"],
    fix: "`vmsan rm VM` takes its disk along.",
  },
  {
    commands: ["remove", "rm", "delete"],
    words: ["-r", "-a", "--all"],
    fix: "Name the VMs: `vmsan rm -f VM…`.",
  },
  {
    commands: ["ssh"],
    words: [
      "-i",
      "-p",
      "-l",
      "-J",
      "-F",
      "-v",
      "-q",
      "-C",
      "-E",
      "-f",
      "-n",
      "-X",
      "-Y",
      "-O",
      "-S",
      "-W",
    ],
    fix: "Keys and the way are known: leave it out (`USER@VM` for a user, `-o NAME=VALUE` for any option of ssh_config, `--verbose` for ssh's -v), or use `vmsan ssh-config` and ssh itself.",
  },
  {
    commands: ["login"],
    words: ["-p", "--password"],
    fix: "A password on a command line can be read by others: use `--password-stdin`.",
  },
  {
    commands: ["build"],
    words: ["--cache-from", "--cache-to", "--no-cache-filter"],
    fix: "The builder keeps its cache by itself; `--no-cache` runs all steps, `vmsan build prune` empties it.",
  },
  {
    commands: ["build"],
    words: ["--push", "--load"],
    fix: "The image is in the store without them; `vmsan image push NAME` sends it to a registry.",
  },
  {
    commands: ["build"],
    words: ["--annotation"],
    fix: "Images are in Docker's format, which has none: `--label KEY=VALUE`.",
  },
  {
    commands: ["build"],
    words: ["--ssh"],
    fix: "No agent is lent to a build: `--secret id=key,src=FILE`, and `ssh -i /run/secrets/key` in the step.",
  },
  {
    commands: ["build"],
    words: ["-q", "--quiet"],
    fix: "Standard output has the digest alone: `2>/dev/null` leaves the rest out, `--iidfile FILE` writes it to a file.",
  },
  {
    commands: ["build"],
    words: ["--squash"],
    fix: "Copy what is wanted into a last stage: `FROM scratch`, `COPY --from=0 / /`.",
  },
  {
    commands: ["build"],
    words: ["--check", "--call", "--print", "--debug", "-D"],
    fix: "A build says what is wrong with its Dockerfile, with the line: `--target STAGE` builds a part of it.",
  },
  {
    commands: ["build"],
    words: ["--provenance", "--sbom", "--attest"],
    fix: "There are no attestations; `--metadata-file FILE` has the digests of what was built.",
  },
  {
    commands: ["build"],
    words: ["--build-arg-file", "--env-file"],
    fix: "Give each with `--build-arg KEY=VALUE`.",
  },
  {
    commands: ["build"],
    words: ["--env", "-e"],
    fix: "`ARG KEY` in the Dockerfile and `--build-arg KEY=VALUE`; `ENV KEY=$KEY` keeps it in the image.",
  },
  {
    commands: ["build"],
    words: [
      "-m",
      "--memory",
      "--memory-swap",
      "--shm-size",
      "--ulimit",
      "--cgroup-parent",
      "-c",
      "--cpu-shares",
      "--cpu-period",
      "--cpu-quota",
      "--cpuset-cpus",
      "--cpuset-mems",
      "--security-opt",
      "--isolation",
      "--builder",
      "--allow",
      "--entitlement",
      "--device",
    ],
    fix: "Steps run in the builder's VM, which has memory and processors of its own and nothing of this host: leave it out.",
  },
  {
    commands: ["build"],
    words: ["--rm", "--force-rm", "--layers", "--pull-always", "--compress", "--stream"],
    fix: "It is so without: leave it out.",
  },
  { words: ["-v", "-V"], fix: "Use `vmsan --version`." },
];

/** Commands that are none. */
export const COMMANDS: readonly Hint[] = [
  {
    words: ["shell", "console", "sh", "bash", "enter", "login-shell"],
    fix: "Use `vmsan connect VM` for a shell, `vmsan ssh VM` for OpenSSH's.",
  },
  {
    words: ["sftp", "scp", "rsync", "sshfs"],
    fix: "Use `vmsan cp`, or OpenSSH's own programs with `vmsan ssh-config`.",
  },
  { words: ["destroy", "terminate", "del"], fix: "Use `vmsan rm -f VM`." },
  {
    words: ["spawn", "launch", "new", "deploy", "up"],
    fix: "Use `vmsan create --name NAME --from-image IMAGE`.",
  },
  { words: ["down", "halt", "shutdown", "poweroff"], fix: "Use `vmsan stop VM`." },
  { words: ["clone", "cp-vm", "branch"], fix: "Use `vmsan fork VM`." },
  { words: ["rollback", "revert"], fix: "Use `vmsan restore VM SNAPSHOT`." },
  { words: ["sleep", "hibernate"], fix: "Use `vmsan suspend VM`." },
  { words: ["wake"], fix: "Use `vmsan resume VM`; any use of it wakes it, too." },
  {
    words: ["resize", "scale"],
    fix: "Use `vmsan update VM --disk SIZE`, `--memory SIZE`, `--vcpus N`.",
  },
  {
    words: ["policy", "firewall"],
    fix: "Use `vmsan network VM`, with `--network-policy …` to change it and `--log` for what it decided.",
  },
  { words: ["networks"], fix: "Use `vmsan network ls`." },
  { words: ["volumes"], fix: "Use `vmsan volume ls`." },
  { words: ["snapshots"], fix: "Use `vmsan snapshot ls`." },
  { words: ["kernels"], fix: "Use `vmsan kernel ls`." },
  { words: ["keys", "auth", "token"], fix: "Use `vmsan key create` and `vmsan key ls`." },
  {
    words: ["forward", "proxy", "tunnel", "publish", "expose"],
    fix: "Use `vmsan port-forward VM LOCAL:REMOTE`, or `-p` when the VM is made.",
  },
  { words: ["dashboard", "open", "web"], fix: "Use `vmsan ui`." },
  { words: ["status", "stat"], fix: "Use `vmsan list`, `vmsan stats`, `vmsan daemon status`." },
  {
    words: ["machine", "machines", "sandbox", "vm", "vms"],
    fix: "Use the commands themselves: `vmsan list`, `vmsan create`, `vmsan rm` …",
  },
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
export const MISSING: Record<string, string> = {
  ps: "`vmsan list` shows all VMs; `vmsan ps VM` the commands in one.",
  kill: "`vmsan kill VM ID` signals a command of `exec -d`; a VM is ended by `vmsan stop VM`, at once by `vmsan rm -f VM`.",
  wait: "`vmsan wait VM ID` waits for a command of `exec -d`; `vmsan ps VM` shows their IDs.",
  exec: "`vmsan exec VM COMMAND…` runs a command; `vmsan connect VM` opens a shell.",
  network:
    "`vmsan network ls` lists private networks; `vmsan network VM` shows what a VM may reach.",
  restore: "`vmsan restore VM SNAPSHOT`; `vmsan snapshot ls` shows them.",
  build: "Name the directory of the context, mostly `.`: `vmsan build -t NAME .`.",
  run: "Name an image or a runtime, `base` for one: `vmsan run IMAGE COMMAND…`.",
  "port-forward": "`vmsan port-forward VM 8080:80`: port 8080 here reaches 80 in the VM.",
  commit: "Name the image that is made: `vmsan commit VM NAME:TAG`.",
};
