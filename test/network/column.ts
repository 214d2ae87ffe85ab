/** One policy's column of the table: every attempt made in a guest, and judged. */
import { execFileSync } from "node:child_process";
import { linkLocalOf } from "../../src/network/kernel/address.ts";
import { expected, lookups, names, type Attempt, type Site } from "./table.ts";
import { name, zone } from "./world.ts";

/** Where a column runs. */
export interface ColumnContext {
  /** Makes attempts in the guest. */
  vm: { probe(fields: Record<string, unknown>): Promise<string> };
  /** Marks seen outside the VM's namespace. */
  seen: Set<string>;
  /** Name of the VM's namespace, and argv that goes where it has that name. */
  netns: string;
  prefix?: readonly string[];
  site: Site;
  table: readonly Attempt[];
  print: (line: unknown) => void;
  /** Milliseconds that an attempt may take; default 1500. */
  patience?: number;
}

/** Give the world the names of the table. */
export function fillZone(): void {
  for (const [host, addresses] of names) name(host, addresses);
  zone.set("alias.test", [{ type: "CNAME", name: "alias.test", ttl: 60, data: "real.other" }]);
  for (const host of ["a.test", "evil.test"]) {
    zone.get(host)?.push(
      { type: "TXT", name: host, ttl: 60, data: "text" },
      {
        type: "UNKNOWN_65" as "NULL",
        name: host,
        ttl: 60,
        data: Buffer.from("0001000000", "hex"),
      },
    );
  }
}

/**
 * What the tap's side of the VM believes about its neighbours and routes, but for the guest's one
 * link-local address, which comes and goes.
 */
function beliefs({ netns, site, prefix = [] }: ColumnContext): string {
  const ask = (...args: string[]): string => {
    const [file = "", ...rest] = [...prefix, "ip", "-n", netns, ...args];
    return execFileSync(file, rest, { encoding: "utf8" });
  };
  const own = `${linkLocalOf(site.guestMac)} `;
  const all = ask("neigh", "show") + ask("-6", "route", "show") + ask("route", "show");
  const lines = all.split("\n").filter((line) => !line.startsWith(own));
  return lines
    .map((line) => line.trim())
    .sort()
    .join("\n");
}

/** Milliseconds for what has to get through: all attempts of a column run at once, and the machine may be busy. */
const PATIENT_MS = 20_000;

/** Whether an attempt succeeded. */
async function succeeds(
  { vm }: ColumnContext,
  attempt: Attempt,
  timeoutMs: number,
): Promise<{ open: boolean; got: string }> {
  if (attempt.frames !== undefined) {
    for (const frame of attempt.frames) await vm.probe({ kind: "frame", frame, dev: "eth0" });
    return { open: false, got: "sent" };
  }
  const got = await vm.probe({ timeoutMs, ...attempt.fields });
  const want = attempt.want ?? /server=|server reached|pong|rcode=0/;
  return { open: got.startsWith("open") && want.test(got), got };
}

/**
 * Run one column, whose policy must be in force; the attempts that got through though they
 * should not.
 * @param report print every result; else be quick about what stays silent
 */
export async function runColumn(
  context: ColumnContext,
  letter: string,
  report: boolean,
): Promise<string[]> {
  const { vm, seen, site, table, print } = context;
  const patience = context.patience ?? 1500;
  for (const [host, type] of lookups) {
    await vm.probe({
      kind: "dns",
      addr: `${site.gateway4}:53`,
      name: host,
      type,
      timeoutMs: patience,
    });
  }
  seen.clear();
  const before = beliefs(context);
  const framed = table.filter((attempt) => attempt.frames !== undefined);
  for (const attempt of framed) await succeeds(context, attempt, patience);
  // What is to get through may take its time; silence is waited for.
  const patient = (attempt: Attempt): number =>
    !report ? 400 : expected(attempt, letter) ? Math.max(patience, PATIENT_MS) : patience;
  const results = new Map(
    await Promise.all(
      table
        .filter((attempt) => attempt.frames === undefined)
        .map(
          async (attempt) => [attempt, await succeeds(context, attempt, patient(attempt))] as const,
        ),
    ),
  );
  // The other attempts took longer than any frame on its way; what got out has been seen.
  for (const attempt of framed) {
    const open = [...seen].some((mark) => mark === attempt.mark);
    results.set(attempt, { open, got: open ? "seen outside" : "not seen" });
  }
  const leaks: string[] = [];
  for (const [attempt, { open, got }] of results) {
    const wanted = expected(attempt, letter);
    if (open && !wanted) leaks.push(attempt.name);
    if (report) {
      print({ policy: letter, name: attempt.name, expected: wanted, open, got: got.slice(0, 200) });
    }
  }
  const after = beliefs(context);
  const same = after === before;
  if (!same) leaks.push("beliefs of the gateway");
  if (report) {
    print({
      policy: letter,
      name: "beliefs of the gateway",
      expected: true,
      open: same,
      got: same ? "" : after,
    });
  }
  return leaks;
}
