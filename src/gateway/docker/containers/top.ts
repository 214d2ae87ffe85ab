/** `GET /containers/ID/top`: what runs in a container, by the agent's own list, so that the image needs no `ps`. */
import { listProcesses } from "../../../agent/processes.ts";
import type { GuestProcess } from "../../../agent/processes.ts";
import { DockerError } from "../errors.ts";
import { reply } from "../http/route.ts";
import type { Call } from "../http/route.ts";
import type { Container } from "./container.ts";

/** What is known besides one process. */
interface Guest {
  /** When the guest was booted, milliseconds since the epoch. */
  bootedAt: number;
  uptimeMs: number;
  memKib: number;
}

type Column = (one: GuestProcess, guest: Guest) => string;

const two = (number: number): string => String(Math.floor(number)).padStart(2, "0");
const clock = (ms: number): string =>
  `${two(ms / 3_600_000)}:${two((ms / 60_000) % 60)}:${two((ms / 1000) % 60)}`;

const user: Column = ({ uid }) => (uid === 0 ? "root" : String(uid));
const pid: Column = (one) => String(one.pid);
const ppid: Column = (one) => String(one.ppid);
const tty: Column = (one) => one.tty || "?";
const time: Column = ({ cpuMs }) => clock(cpuMs);
const command: Column = ({ args }) => args.join(" ");
const state: Column = (one) => one.state;
/** Hours and minutes, of an earlier day its date. */
const start: Column = ({ startMs }, { bootedAt }) => {
  const at = new Date(bootedAt + startMs);
  const text = at.toString();
  return at.toDateString() === new Date().toDateString()
    ? text.slice(16, 21)
    : text.slice(4, 10).replace(" ", "");
};
const cpu: Column = ({ cpuMs, startMs }, { uptimeMs }) =>
  ((100 * cpuMs) / Math.max(1, uptimeMs - startMs)).toFixed(1);
const memory: Column = ({ rssKib }, { memKib }) => ((100 * rssKib) / memKib).toFixed(1);
const size: Column = ({ sizeKib }) => String(sizeKib);
const resident: Column = ({ rssKib }) => String(rssKib);

/** `ps -ef`, which is Docker's default. */
const FULL: [string, Column][] = [
  ["UID", user],
  ["PID", pid],
  ["PPID", ppid],
  ["C", (...of) => String(Math.floor(Number(cpu(...of))))],
  ["STIME", start],
  ["TTY", tty],
  ["TIME", time],
  ["CMD", command],
];

/** `ps aux`. */
const WIDE: [string, Column][] = [
  ["USER", user],
  ["PID", pid],
  ["%CPU", cpu],
  ["%MEM", memory],
  ["VSZ", size],
  ["RSS", resident],
  ["TTY", tty],
  ["STAT", state],
  ["START", start],
  ["TIME", time],
  ["COMMAND", command],
];

/** Columns that `-o` may name. */
const NAMED: Record<string, [string, Column]> = {
  user: ["USER", user],
  uid: ["UID", ({ uid }) => String(uid)],
  pid: ["PID", pid],
  ppid: ["PPID", ppid],
  tty: ["TT", tty],
  tt: ["TT", tty],
  time: ["TIME", time],
  cmd: ["CMD", command],
  args: ["COMMAND", command],
  command: ["COMMAND", command],
  comm: ["COMMAND", ({ args }) => (args[0] ?? "").split("/").at(-1) ?? ""],
  stat: ["STAT", state],
  s: ["S", state],
  stime: ["STIME", start],
  rss: ["RSS", resident],
  vsz: ["VSZ", size],
  "%cpu": ["%CPU", cpu],
  pcpu: ["%CPU", cpu],
  "%mem": ["%MEM", memory],
  pmem: ["%MEM", memory],
};

/** The columns that words of `ps` ask for. @throws 400 for words that this list has no answer to */
function columnsOf(wish: string): [string, Column][] {
  const words = wish.trim().split(/\s+/).join(" ");
  if (["", "-ef", "-e -f", "-f", "-e", "-eF", "-A", "ef"].includes(words)) return FULL;
  if (/^-?a?u?x?w*$/.test(words)) return WIDE;
  const named = /^(?:-e |-A |ax |-ax )?-?(?:e|ax)?o ?(\S+)$/.exec(words)?.[1];
  const columns = named?.split(",").map((name) => NAMED[name.toLowerCase()]);
  const known = columns?.filter((one) => one !== undefined);
  if (known !== undefined && known.length === columns?.length) return known;
  throw new DockerError(
    400,
    `ps ${words.slice(0, 100)}: there are -ef, aux, and -o with ${Object.keys(NAMED).join(", ")}`,
  );
}

/** Tell what runs in a container. @throws 400, 409 when it does not run */
export async function top(call: Call, container: Container): Promise<void> {
  const columns = columnsOf(call.query.text("ps_args"));
  const vm = await container.runningGuest();
  const { uptimeMs, processes } = await listProcesses(vm.transport);
  const guest = {
    bootedAt: Date.now() - uptimeMs,
    uptimeMs,
    memKib: container.record.memMib * 1024,
  };
  reply(call, {
    Titles: columns.map(([title]) => title),
    Processes: processes.map((one) => columns.map(([, column]) => column(one, guest))),
  });
}
