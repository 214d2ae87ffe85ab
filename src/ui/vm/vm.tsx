/** One VM: its heading, and a tab for each side of it. */
import type { ComponentType } from "preact";
import { ButtonLink, Empty, Failure, PageHead, Status } from "../parts/basics.tsx";
import { plain } from "../state/format.ts";
import { to } from "../state/route.ts";
import { useStore } from "../state/store.ts";
import { vmName, vms } from "../state/vms.ts";
import { VmActions } from "./actions.tsx";
import { FilesTab } from "./files.tsx";
import { LogsTab } from "./logs.tsx";
import { NetworkTab } from "./network.tsx";
import { Overview } from "./overview.tsx";
import { SnapshotsTab } from "./snapshots.tsx";
import type { TabProps } from "./tab.ts";
import { TerminalTab } from "./terminal.tsx";

const TABS: { path: string; label: string; shows: ComponentType<TabProps> }[] = [
  { path: "", label: "Overview", shows: Overview },
  { path: "terminal", label: "Terminal", shows: TerminalTab },
  { path: "files", label: "Files", shows: FilesTab },
  { path: "network", label: "Network", shows: NetworkTab },
  { path: "logs", label: "Logs", shows: LogsTab },
  { path: "snapshots", label: "Snapshots", shows: SnapshotsTab },
];

/** The page. */
export function VmPage({ id, rest }: { id: string; rest: string[] }) {
  const { list, error } = useStore(vms);
  const vm = list?.find((one) => one.id === id || one.name === id);
  if (vm === undefined) {
    if (list === undefined) {
      return error === undefined ? <p class="starting">…</p> : <Failure error={error} />;
    }
    return (
      <>
        <PageHead title={id} />
        <Empty icon="vm" title="There is no such VM">
          <p class="muted">It was removed, or belongs to another project.</p>
          <ButtonLink label="All VMs" href={to("vms")} />
        </Empty>
      </>
    );
  }
  const [tab = "", ...behind] = rest;
  const shown = TABS.find(({ path }) => path === tab) ?? TABS[0];
  const Shows = shown?.shows ?? Overview;
  return (
    <>
      <PageHead
        title={plain(vmName(vm))}
        aside={<Status of={vm.status} />}
        above={
          <p class="crumbs small">
            <a href={to("vms")}>VMs</a>
          </p>
        }
      >
        <VmActions vm={vm} />
      </PageHead>
      <nav class="tabs" aria-label="Parts of the VM">
        {TABS.map(({ path, label }) => (
          <a
            key={path}
            href={path === "" ? to("vms", vm.id) : to("vms", vm.id, path)}
            aria-current={path === shown?.path ? "page" : undefined}
          >
            {label}
          </a>
        ))}
      </nav>
      <Shows vm={vm} rest={behind} />
    </>
  );
}
