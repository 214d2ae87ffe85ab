/**
 * What Docker users type, and what vmsan does with it. docs/docker.md is made of this table, and
 * test/e2e/faces/docker-habits.test.ts runs every row of it: no row can say what is not so.
 */
import { CommanderError } from "commander";
import type { Command } from "commander";
import { hintFor } from "../../src/cli/words/hints.ts";
import { engineLines } from "./docker-engine.ts";
import { createProgram } from "../../src/cli/program.ts";

/**
 * One habit. In `type`, `web` is a running VM, in which something was said on the console, and
 * `alpine` an image in the store.
 */
export interface Habit {
  /** Behind `docker`, and behind `vmsan` as well. */
  type: string;
  /** What standard output has when it works the same; absent: it is refused. */
  prints?: RegExp;
  /** Standard input. */
  input?: string;
  /** For the reader: what differs although it works, or how a refusal is met that no hint covers. */
  remark?: string;
  /** Part of the refusal when it does not come from the command line's table of hints. */
  says?: RegExp;
  /** Registries are out of reach while it runs. */
  offline?: true;
}

/** The habits, by what they are about. */
export const habits: Record<string, readonly Habit[]> = {
  Run: [
    {
      type: "run --rm alpine echo hello",
      prints: /^hello\n$/,
      offline: true,
      remark: "an image that is here needs no network; `run` always removes",
    },
    {
      type: "run -it alpine sh",
      prints: /from 2 shells/,
      input: "echo from $((1+1)) shells; exit\n",
    },
    {
      type: "run no.registry.invalid/alpine true",
      says: /image load -i FILE/,
      offline: true,
      remark:
        "offline, not here yet: refused at once; `vmsan image load -i FILE`, `vmsan run oci:DIR` or `docker-archive:FILE` take images from files, `base` needs none",
    },
    {
      type: "run -m 512m alpine cat /proc/meminfo",
      prints: /MemTotal: +4\d{5} kB/,
      remark: "`-m` is `--memory`; the guest's kernel has its share of it",
    },
    {
      type: "run -e A=1 -w /tmp -u 1000:1000 alpine sh -c 'echo $A $PWD; id -u'",
      prints: /^1 \/tmp\n1000\n$/,
    },
    {
      type: "run -p 48080:80 alpine echo up",
      prints: /^up\n$/,
      remark: "`-p` is `--publish-port`; it listens on 127.0.0.1 unless an address is given",
    },
    { type: "run --entrypoint echo alpine from there", prints: /^from there\n$/ },
    { type: "run --network none alpine ls /sys/class/net", prints: /^lo\n$/ },
    {
      type: "run --network host alpine true",
      says: /--network-policy/,
      remark: "refused: a VM has a network of its own; `--network-policy`, `--publish-port`",
    },
    { type: "run -d alpine sleep 100" },
    { type: "run --tmpfs /scratch alpine ls" },
    { type: "run --cpus 2 alpine nproc" },
    { type: "run --env-file .env alpine env" },
    { type: "run --restart always alpine true" },
    { type: "run --privileged alpine true" },
    { type: "run --gpus all alpine true" },
    { type: "run --publish 8080:80 alpine true" },
    { type: "run --hostname db alpine hostname" },
  ],
  VMs: [
    { type: "ps" },
    { type: "ps -a" },
    { type: "exec -it web sh", prints: /in 2 shells/, input: "echo in $((1+1)) shells; exit\n" },
    { type: "exec -u root -e A=1 web sh -c 'id -u; echo $A'", prints: /^0\n1\n$/ },
    {
      type: "logs -f web",
      prints: /said on the console/,
      remark: "the guest's console; `logs VM ID` a command of `exec -d`",
    },
    { type: "cp web:/etc/hostname -", prints: /^web\n$/ },
    { type: "inspect web", prints: /"status": "running"/ },
    { type: "pause web", prints: /web/, remark: "`resume` lets it go on" },
    { type: "unpause web" },
    { type: "resume web", prints: /web/ },
    { type: "stats --no-stream web", prints: /web/ },
    { type: "events --since 0 --no-stream", prints: /vm\.started/ },
    { type: "top web" },
    { type: "attach web" },
    { type: "kill web" },
    { type: "restart web" },
    { type: "rename web db" },
    { type: "commit web mine", prints: /^sha256:[0-9a-f]{64}\n$/ },
    { type: "stop web", prints: /web/, remark: "its disk stays" },
    { type: "start web", prints: /vm-/ },
    { type: "rm -f web", prints: /web/ },
  ],
  Images: [
    { type: "images" },
    { type: "pull alpine" },
    { type: "rmi alpine" },
    { type: "save alpine" },
    { type: "load" },
    {
      type: "build .",
      says: /no Containerfile and no Dockerfile/,
      remark: "the same where there is a Dockerfile, in a VM ([more](build.md))",
    },
    { type: "push alpine" },
  ],
  "The rest": [
    { type: "version" },
    { type: "-v" },
    { type: "info" },
    { type: "system prune" },
    { type: "volume ls", prints: /NAME/ },
    { type: "network create app", prints: /^app\n$/ },
    { type: "network ls", prints: /app/ },
    { type: "network rm app", prints: /^app\n$/ },
    { type: "compose up" },
  ],
};

/** The words of a habit: blanks separate, single quotes keep together. */
export function wordsOf({ type }: Habit): string[] {
  return [...type.matchAll(/'([^']*)'|\S+/g)].map((match) => match[1] ?? match[0]);
}

/** What the command line says to these words before anything is done. */
export async function refusalOf(words: readonly string[]): Promise<string | undefined> {
  const program = await createProgram(words);
  let asked: Command | undefined;
  const quiet = (command: Command): void => {
    command.exitOverride((error) => {
      asked = command;
      throw error;
    });
    command.configureOutput({ writeErr: () => undefined });
    for (const child of command.commands) quiet(child);
  };
  quiet(program);
  try {
    await program.parseAsync(words, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    const { fix, isKnown } = hintFor(error.message, words, asked);
    return isKnown ? fix : undefined;
  }
  return undefined;
}

/** docs/docker.md. */
export async function dockerDocument(): Promise<string> {
  const lines = [
    "# For those who know Docker",
    "",
    "Made from a table by `npm run docs`; a test runs every row of it. `web` is a running VM",
    "(`vmsan create --name web --from-image alpine`), `alpine` an image. What is refused ends with status",
    "2, and the error says what this page does.",
    "",
  ];
  for (const [about, rows] of Object.entries(habits)) {
    lines.push(`## ${about}`, "", "| `docker …` | `vmsan …` |", "|---|---|");
    for (const habit of rows) {
      const remark = habit.remark === undefined ? "" : `; ${habit.remark}`;
      const does =
        habit.prints !== undefined
          ? `the same${remark}`
          : (habit.remark ?? (await refusalOf(wordsOf(habit))) ?? "");
      lines.push(`| \`${habit.type}\` | ${does.replaceAll("|", "\\|")} |`);
    }
    lines.push("");
  }
  lines.push(...engineLines());
  return `${lines.join("\n").trimEnd()}\n`;
}
