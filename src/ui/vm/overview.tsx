/** What a VM is, and how it is. */
import type { VmView } from "../../model/api.ts";
import type { Mount } from "../../model/mount.ts";
import { Facts, Failure, Foreign, Section } from "../parts/basics.tsx";
import { Graph } from "../parts/graph.tsx";
import { useNow } from "../state/ask.ts";
import { ago, bytes, duration, moment, plain } from "../state/format.ts";
import { to } from "../state/route.ts";
import { memoryUsed, useUsage } from "../state/stats.ts";
import { useStore } from "../state/store.ts";
import { events, sourceOf } from "../state/vms.ts";
import { EventList } from "../parts/event-list.tsx";
import { MEANS } from "./halted.tsx";
import type { TabProps } from "./tab.ts";

const POLICIES: Record<VmView["policy"]["mode"], string> = {
  "allow-all": "everything on the internet, not the host's own networks",
  "deny-all": "nothing",
  custom: "what is listed",
  none: "no network card",
};

const ENDS = { suspend: "it sleeps", stop: "it stops", remove: "it is removed" };

function mountText(mount: Mount): string {
  if (mount.kind === "anonymous") return mount.target;
  if (mount.kind === "tmpfs") return `memory → ${mount.target}`;
  const from = mount.kind === "volume" ? mount.name : mount.source;
  return `${from} → ${mount.target}${mount.readonly ? " (read only)" : ""}`;
}

/** Where a published port is reached. */
function portAddress(address: string, port: number): string {
  const local = address === "0.0.0.0" || address === "::";
  const host = local ? location.hostname : address.includes(":") ? `[${address}]` : address;
  return `${host}:${port}`;
}

function Ports({ vm }: { vm: VmView }) {
  if (vm.ports.length === 0) return <p class="muted">None is published.</p>;
  return (
    <ul class="plain">
      {vm.ports.map(({ protocol, hostAddress, hostPort, guestPort }) => {
        const address = portAddress(hostAddress, hostPort);
        return (
          <li key={`${protocol}${hostPort}`}>
            {protocol === "tcp" ? (
              <a class="mono" href={`http://${address}`} target="_blank" rel="noreferrer noopener">
                {address}
              </a>
            ) : (
              <span class="mono">{address}/udp</span>
            )}{" "}
            <span class="muted">to port {guestPort} of the guest</span>
          </li>
        );
      })}
    </ul>
  );
}

function Policy({ vm }: { vm: VmView }) {
  const { policy } = vm;
  const list = (items: readonly (string | number)[]): string => items.join(", ");
  return (
    <Facts
      of={[
        ["Reaches", POLICIES[policy.mode]],
        ["Names", list(policy.allowedDomains)],
        ["Networks", list(policy.allowedCidrs)],
        ["Refused", list(policy.deniedCidrs)],
        ["Ports", list(policy.allowedPorts)],
        ["Ports of the host", list(policy.allowHostPorts)],
        ["Bandwidth", policy.bandwidthMbit === undefined ? "" : `${policy.bandwidthMbit} Mbit/s`],
        ["Address", vm.guestNetwork?.ipv4 ?? ""],
        ...vm.networks.map(({ network, address }): [string, string] => [`In ${network}`, address]),
        ["Note", vm.networkReason ?? ""],
      ]}
    />
  );
}

/** One figure, large, with its line. */
function Figure(props: {
  title: string;
  value: string;
  note: string;
  values: readonly number[];
  most: number;
}) {
  return (
    <section class="section figure">
      <h2>{props.title}</h2>
      <p class="figure-value">
        {props.value} <span class="muted">{props.note}</span>
      </p>
      <Graph
        values={props.values}
        most={props.most}
        label={`${props.title}: ${props.value} ${props.note}`}
      />
    </section>
  );
}

/** What it uses, now and in the last minutes. */
function Figures({ vm }: { vm: VmView }) {
  const usage = useUsage(vm.id).get(vm.id);
  if (vm.status !== "running" || usage === undefined) return null;
  const { latest, cpu, memory, received, sent } = usage;
  const all = vm.memMib * 2 ** 20;
  const used = memoryUsed(latest);
  const busy = cpu.at(-1);
  const { guest, host } = latest;
  return (
    <div class="figures">
      <Figure
        title="Processors"
        value={busy === undefined ? "…" : `${Math.round(busy)} %`}
        note={`of ${vm.vcpus}`}
        values={cpu}
        most={100}
      />
      <Figure
        title="Memory"
        value={used === undefined ? "…" : bytes(used)}
        note={`of ${bytes(all)}`}
        values={memory}
        most={all}
      />
      <section class="section figure">
        <h2>Traffic and disk</h2>
        <Facts
          of={[
            ["In", received === undefined ? "" : `${bytes(received)}/s`],
            ["Out", sent === undefined ? "" : `${bytes(sent)}/s`],
            [
              "Disk",
              guest === undefined
                ? ""
                : `${bytes(guest.diskTotalBytes - guest.diskFreeBytes)} of ${bytes(guest.diskTotalBytes)}`,
            ],
            ["On the host", host === undefined ? "" : bytes(host.diskBytes)],
            ["Processes", guest === undefined ? "" : String(guest.processes)],
          ]}
        />
      </section>
    </div>
  );
}

/** The tab. */
export function Overview({ vm }: TabProps) {
  const now = useNow();
  const happened = useStore(events).filter((event) => event.vm?.id === vm.id);
  const { timeoutAt, onTimeout = "stop", idle } = vm;
  const { total } = vm.timings;
  return (
    <div class="overview">
      {vm.error !== undefined && <Failure error={vm.error} />}
      {MEANS[vm.status] !== undefined && <p class="muted means">{MEANS[vm.status]}</p>}
      <Figures vm={vm} />
      <div class="columns">
        <Section title="Machine">
          <Facts
            of={[
              ["Made of", <Foreign text={sourceOf(vm)} />],
              ["Image", vm.image === undefined ? "" : <Foreign mono text={vm.image.name} />],
              ["Processors", String(vm.vcpus)],
              ["Memory", bytes(vm.memMib * 2 ** 20)],
              ["Disk", bytes(vm.diskSizeBytes)],
              ["ID", <span class="mono">{vm.id}</span>],
              ["Project", plain(vm.project)],
              [
                "Snapshot",
                vm.snapshot === undefined ? (
                  ""
                ) : (
                  <a class="mono" href={to("snapshots")}>
                    {vm.snapshot}
                  </a>
                ),
              ],
              ["Driver", `${vm.driver}${vm.accelerator === "none" ? "" : `, ${vm.accelerator}`}`],
              ["Kernel", <span class="mono">{vm.kernel}</span>],
            ]}
          />
        </Section>
        <Section title="Life">
          <Facts
            of={[
              ["Made", <span title={moment(vm.createdAt)}>{ago(vm.createdAt, now)}</span>],
              ["Started", vm.startedAt === undefined ? "" : ago(vm.startedAt, now)],
              [
                "Time limit",
                timeoutAt === undefined
                  ? "none"
                  : `${ENDS[onTimeout]} in ${duration(Date.parse(timeoutAt) - now)}`,
              ],
              [
                "When idle",
                idle === undefined ? "" : `${ENDS[idle.action]} after ${duration(idle.ms)}`,
              ],
              ["Stopped because", vm.stopReason === undefined ? "" : "its time limit had passed"],
              ["Last start", total === undefined ? "" : `took ${(total / 1000).toFixed(1)} s`],
            ]}
          />
        </Section>
        <Section
          title="Network"
          aside={
            <a href={to("vms", vm.id, "network")} class="small">
              Decisions
            </a>
          }
        >
          <Policy vm={vm} />
        </Section>
        <Section title="Ports">
          <Ports vm={vm} />
        </Section>
        {vm.secrets.length > 0 && (
          <Section title="Secrets">
            <Facts
              of={vm.secrets.map(({ name, domains, places }) => [
                plain(name),
                `for ${plain(domains.join(", "))}, in ${places.join(", ")}`,
              ])}
            />
          </Section>
        )}
        {happened.length > 0 && (
          <Section title="What happened">
            <EventList events={happened.slice(0, 12)} />
          </Section>
        )}
        {vm.mounts.length > 0 && (
          <Section title="Mounts">
            <ul class="plain mono">
              {vm.mounts.map((mount) => (
                <li key={mount.target}>{plain(mountText(mount))}</li>
              ))}
            </ul>
          </Section>
        )}
        {Object.keys(vm.labels).length > 0 && (
          <Section title="Labels">
            <Facts
              of={Object.entries(vm.labels).map(([name, value]) => [plain(name), plain(value)])}
            />
          </Section>
        )}
      </div>
    </div>
  );
}
