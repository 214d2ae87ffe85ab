/** All VMs. */
import { useState } from "preact/hooks";
import type { VmView } from "../../model/api.ts";
import { ButtonLink, Empty, Failure, Foreign, PageHead, STATUS, Status } from "../parts/basics.tsx";
import { Graph } from "../parts/graph.tsx";
import { Bar } from "../parts/size.tsx";
import { Table } from "../parts/table.tsx";
import { useNow } from "../state/ask.ts";
import { ago, bytes, duration, moment } from "../state/format.ts";
import { to } from "../state/route.ts";
import { memoryUsed, useUsage } from "../state/stats.ts";
import type { Usage } from "../state/stats.ts";
import { useStore } from "../state/store.ts";
import { sourceOf, vmName, vms } from "../state/vms.ts";

function since(vm: VmView, now: number): string {
  if (vm.status === "running" && vm.startedAt !== undefined) {
    return `up ${duration(now - Date.parse(vm.startedAt))}`;
  }
  return `made ${ago(vm.createdAt, now)}`;
}

/** Its processors and memory at this moment. */
function Load({ vm, usage }: { vm: VmView; usage: Usage | undefined }) {
  const used = usage === undefined ? undefined : memoryUsed(usage.latest);
  const busy = usage?.cpu.at(-1);
  const shows = vm.status === "running";
  const all = vm.memMib * 2 ** 20;
  return (
    <>
      <td class="load wide">
        {shows && busy !== undefined && (
          <span class="spark">
            <Graph
              values={usage?.cpu ?? []}
              most={100}
              height={24}
              label={`Processors ${Math.round(busy)} %`}
            />
            <span class="num" aria-hidden="true">
              {Math.round(busy)} %
            </span>
          </span>
        )}
      </td>
      <td class="load">
        {shows && used !== undefined ? (
          <Bar share={used / all} label={`${bytes(used)} of ${bytes(all)}`} />
        ) : (
          <span class="num muted">{bytes(all)}</span>
        )}
      </td>
    </>
  );
}

function Row({ vm, now, usage }: { vm: VmView; now: number; usage: Usage | undefined }) {
  return (
    <tr>
      <td class="name">
        <a href={to("vms", vm.id)}>
          <Foreign text={vmName(vm)} />
        </a>
        {vm.name !== undefined && <span class="mono small muted">{vm.id}</span>}
      </td>
      <td>
        <Status of={vm.status} />
      </td>
      <td class="wide">
        <span class="clip">{sourceOf(vm)}</span>
      </td>
      <Load vm={vm} usage={usage} />
      <td class="num wide">
        {vm.ports.map(({ hostPort, guestPort }) => `${hostPort}→${guestPort}`).join(", ")}
      </td>
      <td class="num wide" title={moment(vm.createdAt)}>
        {since(vm, now)}
      </td>
    </tr>
  );
}

/** The page. */
export function Vms() {
  const { list, error } = useStore(vms);
  const [search, setSearch] = useState("");
  const now = useNow(5_000);
  const usage = useUsage();
  const wanted = search.trim().toLowerCase();
  const shown = (list ?? []).filter((vm) =>
    `${vm.name ?? ""} ${vm.id} ${sourceOf(vm)} ${vm.status} ${STATUS[vm.status]} ${vm.project}`
      .toLowerCase()
      .includes(wanted),
  );
  const running = (list ?? []).filter(({ status }) => status === "running").length;
  return (
    <>
      <PageHead
        title="VMs"
        aside={
          list !== undefined &&
          list.length > 0 && (
            <span class="muted">
              {running} of {list.length} running
            </span>
          )
        }
      >
        {list !== undefined && list.length > 5 && (
          <input
            type="search"
            aria-label="Search VMs"
            placeholder="Search"
            value={search}
            onInput={(event) => setSearch(event.currentTarget.value)}
          />
        )}
        <ButtonLink kind="primary" icon="plus" label="New VM" href={to("create")} />
      </PageHead>
      {error !== undefined && <Failure error={error} what="This list may be old" />}
      {list?.length === 0 && (
        <Empty icon="vm" title="No VMs yet">
          <p class="muted">
            A VM is a computer of its own, apart from this host and from all others. It is made of
            any container image, in seconds.
          </p>
          <ButtonLink icon="plus" label="New VM" href={to("create")} />
        </Empty>
      )}
      {shown.length > 0 && (
        <Table
          label="VMs"
          columns={[
            "Name",
            "State",
            ["Image", "wide"],
            ["Processors", "wide"],
            "Memory",
            ["Ports", "num wide"],
            ["Age", "num wide"],
          ]}
        >
          {shown.map((vm) => (
            <Row key={vm.id} vm={vm} now={now} usage={usage.get(vm.id)} />
          ))}
        </Table>
      )}
      {list !== undefined && list.length > 0 && shown.length === 0 && (
        <p class="muted">Nothing is called like that.</p>
      )}
    </>
  );
}
