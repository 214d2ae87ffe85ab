/**
 * What docs/docker.md says of Docker's Engine API: the endpoints come from the routes that are served, so that none
 * can be left out or be there in vain.
 */
import { runFlags } from "./docker-flags.ts";
import { dockerRoutes } from "../../src/gateway/docker/routes/all.ts";
import { API_VERSION, MIN_API_VERSION } from "../../src/gateway/docker/http/wire.ts";

const INTRODUCTION = `# Docker's own clients

\`vmsan serve --docker\` speaks the Docker Engine API (${MIN_API_VERSION} to ${API_VERSION}): the \`docker\` command line, docker-py, dockerode and what is
built on them work unmodified, and each container is a microVM.

\`\`\`sh
vmsan serve --docker &                 # a socket in VMSAN_DIR, mode 0600
eval "$(vmsan docker-env)"             # DOCKER_HOST; TESTCONTAINERS_RYUK_DISABLED, which spares a VM (below)
docker run --rm -it alpine sh
\`\`\`

\`--docker unix:///PATH\` and \`--docker tcp://127.0.0.1:PORT\` listen elsewhere. Whoever reaches the engine may do what you may
(mount your directories, for example): over a network it takes \`--tls-cert\`, \`--tls-key\` and \`--docker-ca\`, and then clients with a
certificate of that authority alone. Without TLS it listens on unix sockets and on loopback only, where every user of the
machine reaches a port. Web pages are refused.

- A container that was only made is a document in \`VMSAN_DIR/gateway/docker\`; it holds its image, whoever has that one's name by then. Its VM is made when
  it is started, or when files are copied from or to it; a stopped one keeps its disk and takes no memory. \`vmsan list\` shows the VM under the
  first 12 digits of the container's ID.
- What the main process prints is on disk before the guest forgets it: \`docker logs\` has every byte once, also when gateway or
  daemon were killed. While no gateway runs the guest keeps 8 MiB of each output, then the process waits. Logs are bounded:
  256 MiB, or \`--log-opt max-size=… max-file=…\`.
- A gateway that is started anew finds what runs, and starts what has a restart policy. Several cannot serve one VMSAN_DIR.
- A container without \`-m\` has 512 MiB, without \`--cpus\` one processor; \`--cpus 1.5\` is two. Disks are 10 GiB (\`--storage-opt size=20\`),
  of which only what is written is taken up.
- A volume is a file system that one microVM may write to at a time, at the speed of a disk. One that **several containers** mount, and
  any of them may write to, becomes a directory of the host that all of them see ([shared volume](volumes.md)): when a container is started
  while another one that mounts it is made or runs, and no VM has it as its disk. Compose makes all containers before it starts the first, so that
  services which share a volume just work; what was in it is carried over. If a container runs with it as a disk already, the
  other one is refused: \`docker restart\` that one, then start this; or make the volume with \`docker volume create -o shared=true NAME\`
  (Compose: \`driver_opts: {shared: "true"}\`). A shared one is slower with many small files, its size is a bound that may be passed by a little, and of its locks
  those of \`flock\` hold between containers, those of \`fcntl\` within one. Directories and single files (\`-v ./app.conf:/etc/app.conf:ro\`,
  configs and secrets of compose) are shared. A file is the one that was there when the VM started, as with Docker: one that an editor
  puts in its place is seen after the next start. Sockets and devices of the host are refused.
- The engine's own socket (\`-v $SOCKET:/var/run/docker.sock\`) is refused too: a container that had it would be the master of whoever runs
  the engine. One with the label \`org.testcontainers\`, as testcontainers' reaper Ryuk has it, gets a socket in its place through which it
  lists and removes what testcontainers has made (that label, or compose projects \`testcontainers-…\`), and does nothing else. Ryuk
  works so; \`vmsan docker-env\` disables it all the same, since it is one more VM (\`unset TESTCONTAINERS_RYUK_DISABLED\`).
- \`-p 8080:80\` listens on 127.0.0.1; give an address to listen elsewhere. Who connects before the container's program listens waits for it,
  ten seconds at most and in the first minute alone: testcontainers for Python, for one, tells Ryuk of its session at once and only once.
- The network is that of every VM: out to the world, not to the host and its private networks (docs/network.md). Networks that users
  make are vmsan's private networks: members reach each other by name, alias and address over IPv4, and nobody else does;
  \`--internal\` ones have no way out. \`docker network connect\` works while a container runs.
- \`act\` (GitHub's workflows) asks for the host's network and the engine's socket, which are refused: \`act --network bridge --container-daemon-socket -\`. Its
  jobs share the volume \`act-toolcache\`: \`docker volume create -o shared=true act-toolcache\` first, or \`--concurrent-jobs 1\`.
- The main process is not number 1 of its guest: TERM ends it, \`--init\` means nothing,
  and \`docker top\` shows its own processes alone.
- \`--tmpfs\` and \`--shm-size\` are memory of the guest, with Docker's options; anonymous volumes are directories on the VM's own
  disk, gone with the container. A stopped container keeps the latter alone.
- \`--ulimit\` holds for all commands of a container, whoever runs them.
- \`--read-only\` is the guest's root, but for /etc/hosts, hostname, resolv.conf and machine-id. It is kept from mistakes: root in a guest has
  all rights there, and may mount it otherwise.
`;

/** How to read the flags. */
const FLAGS = `*No effect*: taken, since there is nothing for it to do; *warns*: taken with a warning that it is not applied; *the client's*: the
engine never sees it. \`docker update\` of \`--cpus\` and \`--memory\` is refused while a container runs.
`;

/** What was shown, with which clients; figures are of emulated guests on two processors. */
const SHOWN = `## Shown with

In every run of the tests: the \`docker\` command line (the machine's, or Debian's 20.10) in guests that boot, through a
killed gateway and daemon; on the fake driver over a hundred of its commands with what Docker documents that they print
(test/docker/commands.test.ts), over TLS with certificates, the Python package \`docker\` 7.2, dockerode 5.0, and a client that speaks as buildx does. In guests
that boot (test/e2e/faces/docker-clients.test.ts): \`docker compose\` 5.6 (a file of three services with volume, networks, health check, \`depends_on\`, \`scale\`,
\`logs -f\`, \`exec\`, \`down -v\`; a second \`up\` changes nothing; a second project reaches nothing of the first, and a port is on the address asked
for alone), testcontainers for Node 12.2 and for Python 4.15 (ports, logs, files, networks), \`devcontainer up\` and \`exec\` 0.89 (of an image; of a
compose file with a feature; of a Dockerfile with a feature, a user of its own, mounts and commands, stopped in between). By hand, in
guests: the command line 28.2, \`docker build\` (also of archives and Dockerfiles on standard input), \`buildx bake\`, \`--metadata-file\`
and \`docker compose build\` with buildx 0.38, the real Ryuk 0.14 (it removed a container and a
network of its session, and itself), Go's own client (github.com/docker/docker/client 28.5, fifty calls), and compose files with profiles,
\`extends\`, \`include\`, anchors, \`env_file\`, configs and secrets (files, \`content\`, \`environment\`), all conditions of \`depends_on\`, health checks of every form,
restart policies, \`scale\`, \`deploy\`, networks with aliases and fixed addresses, external ones, volumes, tmpfs, ulimits, sysctls, with
\`run\`, \`exec\`, \`cp\`, \`top\`, \`ps\`, \`port\`, \`pause\`, \`kill\`, \`events\`, \`down -v\`. \`act\` 0.2.89: a workflow of two jobs
with a checkout, outputs, a container of its own and a service. On the fake driver \`compose\` besides with \`--wait\`, \`watch\` (all its actions), \`wait\`, \`attach\`,
\`config --hash\`, \`--force-recreate\`, \`commit\`, hooks (\`post_start\`, \`pre_stop\`), \`stats\`, \`volumes\`, \`--exit-code-from\`, and two hundred calls of the command line with filters
and formats. In guests besides: \`diff\`, \`export | import\`, \`cp -\` both ways, \`commit\`, volumes and parts of them, users and groups, and dev containers with a
compose file (two services, an override, \`runServices\`) and with mounts of all kinds, a workspace with a blank in its name and stopped in between; as a user
other than root, whose number the container's user then has (\`updateRemoteUserUID\`); with features by buildx 0.38 and without it, of a
compose file too. (Compose that is built from its Go module without being told its version says \`dev\`: the command line then takes it for an old one, and buildx refuses
to read what that names outside of the context, \`additional privileges requested\`. Engines are not asked.)

By hand also other people's own suites, unmodified, with small images of ours under the names that they ask for: docker-py's integration tests (7.2;
on the fake driver, but for Swarm, plugins and what pulls), dockerode's (5.0, likewise), and in guests those of testcontainers for Node (12.1) and for Python (4.15).
docker-py: of 81 tests of containers 56 passed; of the others fourteen want what the fake driver lacks (shared directories, volumes,
\`docker diff\`, a network card's figures), ten are in the list above, and one is WebSockets over a unix socket, which docker-py itself cannot. In guests twelve of those that
the fake driver cannot do, for binds, volumes, parts of them, tmpfs, files and \`docker diff\`, pass. Of 29 of networks thirteen are not met:
Swarm, IPv6, links, MAC and link-local addresses, IPAM, blanks; those of health checks, volumes and streams pass. Node: of 42 tests of generic containers 34 passed; of the others two pull, a build took a busy machine too long, two are mended since, three are in the list above; logs,
lifecycle and restarts passed. Python: of 281 of its core tests 271 passed at a load of 9; Ryuk 0.14 is told of its session and
removes it. Of the others two asked right behind the start for what was not printed yet (such a look waits a second for the first words since, in a guest seen with
docker-py), six want an image, a package of pytest's or a setting that was not there, \`volumes_from\` is refused, and \`exec\` with \`privileged\` gives no more rights than
root has. What docker-py itself loses: findings/docker-py-exec-terminal.sh.

Go: of the tests of testcontainers for Go (0.45 before its release; containers, commands, files, names, reuse, logs, hooks, volumes) 46 passed in guests; the others want images of registries
or programs that those of ours lack, and one a gateway on the network \`bridge\`, where guests reach no host.

By \`node bench/docker.ts\`, by turns, medians, on two cores at a load of 2.6: \`docker run --rm alpine true\` 2.2 s and \`vmsan run alpine -- true\` 2.5 (cold),
\`docker exec\` 68 ms and \`vmsan exec\` 57; at a load of 19 \`docker run\` took 0.9 of \`vmsan run\`'s time again. \`docker logs\` of 100 MiB at a load of 18,
whether lines have 20 bytes or 62: 0.6 to 2 s.
`;

/** Known limits, in words. */
const NOT_YET = `## What does not hold yet

- Steps of builds are buildah's, and its words: with buildx (its driver \`docker\`) as with the classic builder. Of BuildKit there
  are Dockerfiles with contexts of files or archives (\`docker build -\`), arguments, labels, targets, \`--secret\`, \`RUN --mount=type=cache\`, \`--build-context\` of
  directories and images; \`--output\` to files, \`--push\`,
  \`--ssh\`, \`--check\`, several platforms at once, caches elsewhere and \`# syntax\` of one's own are refused or ignored.
- \`docker search\` is refused, and \`docker import\` of an address.
- A container in another's network (\`network_mode: service:web\`, as sidecars have it) is refused: two microVMs share no network card. So is
  \`network_mode: host\`, for which tools that ask for it unasked have a setting.
- Without the buildx plugin \`docker build\` says that it is deprecated and sends the same build to the classic builder, as
  \`DOCKER_BUILDKIT=0\` does; \`docker compose build\` likewise, but for \`dockerfile_inline\`, secrets and the like, which compose gives to buildx alone.
- What containers on one machine's Docker share and microVMs do not: IPC, process numbers, locks by \`fcntl\` of a volume's files.
- podman's remote client speaks another API (libpod).
- Of other people's suites (below) these are not met, each for its reason: links and \`volumes_from\`, \`--pid\`, \`--uts\` and \`--ipc host\`, IPv6 and
  MAC addresses, Swarm, plugins, another volume driver, network names with blanks, IPAM besides a subnet, subnets of public addresses, a look at an
  image in its registry, \`Parent\` of what was committed, \`SpaceReclaimed\` of removed ones, capabilities and
  \`no-new-privileges\` of process 1, which is the agent. dockerode's builds by BuildKit (\`version: "2"\`) are refused: its classic ones work.
- The builder's cache is one thing: \`docker builder prune\` removes all of it, or with \`--filter until=24h\` or \`--keep-storage 10GB\` nothing, if it was used since
  or is no larger. Other filters and \`min-free-space\` are refused.
- A network may be removed while only containers that do not run are on it; they do not start without it, and do with a new one of its name, or after
  \`docker network disconnect\`.
- Volumes of another kind than vmsan's own (\`driver_opts\` with \`type\`, \`o\`, \`device\`) are refused: share a directory (\`-v /path:/data\`).
`;

/** Lines of the document. */
export function engineLines(): string[] {
  const lines = [INTRODUCTION.trimEnd(), "", "## Endpoints", "", "| | | |", "|---|---|---|"];
  for (const [about, routes] of Object.entries(dockerRoutes)) {
    lines.push(`| **${about}** | | |`);
    for (const { method, path, says, note } of routes) {
      const where = path.replaceAll(/:([a-z]+)/g, "{$1}");
      lines.push(`| \`${method} ${where}\` | ${says} | ${note ?? ""} |`);
    }
  }
  lines.push("", "## Flags of `docker run`", "", FLAGS.trimEnd(), "", "| | | |", "|---|---|---|");
  for (const { flag, says, note } of runFlags)
    lines.push(`| \`${flag}\` | ${says} | ${note ?? ""} |`);
  lines.push("", NOT_YET.trimEnd(), "", SHOWN.trimEnd(), "");
  return lines;
}
