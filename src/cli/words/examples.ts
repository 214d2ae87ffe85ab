/** Examples of commands: for their help, docs/cli.md and the manual page. A test parses each. */
import type { Command } from "commander";

/** Command lines behind `vmsan`, by the command's words. `web` is a VM. */
export const EXAMPLES: Record<string, readonly string[]> = {
  run: [
    "run base -- uname -a",
    "run -it python:3.13 python3",
    "run -v ./src:/work -w /work node:22 -- npm test",
    "run --network-policy deny-all --timeout 5m -m 256m base -- sh -c 'id; nproc'",
  ],
  create: [
    "create --name web --from-image nginx -p 8080:80",
    "create --name box --runtime base --vcpus 2 --memory 1g --disk 20g",
    "create --name copy --snapshot ready",
    "create --name agent --allowed-domain '*.debian.org,api.example.com'",
  ],
  fork: ["fork web", "fork web -n 3 --name try"],
  exec: [
    "exec web ls -la /",
    "exec -it web bash",
    "exec web -- sh -c 'ps aux | head'",
    "exec -u root -w /srv -e A=1 web env",
    "exec -d web ./server",
  ],
  connect: ["connect web", "connect web -s build"],
  ssh: [
    "ssh web",
    "ssh root@web 'uname -a; id'",
    "ssh -N -L 8080:127.0.0.1:80 web",
    "ssh -A web git fetch",
  ],
  "ssh-config": ["ssh-config", "ssh-config web"],
  stop: ["stop web", "stop -t 60 web db"],
  remove: ["rm web", "rm -f web db"],
  update: ["update web --disk 40g", "update web --memory 2g --vcpus 2"],
  logs: ["logs web", "logs -f -n 100 web", "logs web 0123456789abcdef"],
  stats: ["stats", "stats web --no-stream --json"],
  events: ["events", "events --since 10m --filter type=vm --no-stream"],
  network: [
    "network web",
    "network web --log -f",
    "network web --network-policy deny-all",
    "network web --allowed-domain api.example.com,cdn.example.com --allowed-port 443",
  ],
  "network create": ["network create app", "network create app --subnet 10.20.0.0/16"],
  "network connect": ["network connect app web --alias www"],
  "port-forward": ["port-forward web 8080:80", "port-forward -R web 5432:5432"],
  upload: ["upload web ./file /srv/", "upload web ./a ./b -d /srv", "upload web - -d /srv/file"],
  download: ["download web /var/log ./log", "download web /etc/os-release -"],
  cp: ["cp ./site web:/srv", "cp web:/var/log ./log"],
  kill: ["kill web 0123456789abcdef", "kill -s HUP web 0123456789abcdef"],
  "snapshot create": ["snapshot create web", "snapshot create web --name ready"],
  "snapshot export": ["snapshot export ready -o ready.tar"],
  "snapshot import": ["snapshot import -i ready.tar"],
  restore: ["restore web ready"],
  "volume create": ["volume create data --size 20gb"],
  "volume export": ["volume export data -o data.tar"],
  "volume import": ["volume import data -i data.tar"],
  "image pull": ["image pull node:22", "image pull ghcr.io/owner/name:tag"],
  "image push": ["image push app:1 ghcr.io/owner/app:1"],
  "image save": ["image save app:1 -o app.tar"],
  "image load": ["image load -i app.tar"],
  build: [
    "build -t app:1 .",
    "build -t app:1 -f docker/prod --target run --build-arg VERSION=2 .",
    "build --secret id=npm,src=./npmrc -t app:1 .",
  ],
  commit: ["commit web web:2", "commit -c 'CMD [\"/srv/run\"]' -m 'with data' web web:2"],
  login: ["login ghcr.io -u owner --password-stdin"],
  ui: ["ui", "ui --no-open --expires 30m"],
  serve: [
    "serve",
    "serve --listen 0.0.0.0:7300 --tls-cert cert.pem --tls-key key.pem",
    "serve --docker",
  ],
  "key create": ["key create --name ci --project ci --expires 30d --max-vms 10 --max-memory 8g"],
  mcp: ["mcp", "mcp --policy policy.json"],
  "mcp install": ["mcp install", "mcp install cursor --write"],
  setup: ["setup --plan", "setup --runtime base,node22"],
};

/** Put the examples behind the help of commands that have some. */
export function addExamples(command: Command, path: readonly string[] = []): void {
  const lines = EXAMPLES[path.join(" ")] ?? [];
  if (lines.length > 0) {
    const text = lines.map((line) => `  vmsan ${line}`).join("\n");
    command.addHelpText("after", `\nExamples:\n${text}`);
  }
  for (const child of command.commands) addExamples(child, [...path, child.name()]);
}
