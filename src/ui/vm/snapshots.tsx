/** Snapshots of one VM, and the one it comes from. */
import { Empty, Failure, Foreign } from "../parts/basics.tsx";
import { ACTIONS, Table } from "../parts/table.tsx";
import { SnapshotActions, useSnapshots } from "../pages/snapshots.tsx";
import { useNow } from "../state/ask.ts";
import { ago, bytes, moment } from "../state/format.ts";
import { to } from "../state/route.ts";
import type { TabProps } from "./tab.ts";

/** The tab. */
export function SnapshotsTab({ vm }: TabProps) {
  const { data, error, refresh } = useSnapshots();
  const now = useNow(10_000);
  const own = (data?.snapshots ?? []).filter(
    (snapshot) => snapshot.vm.id === vm.id || snapshot.id === vm.snapshot,
  );
  return (
    <>
      {error !== undefined && <Failure error={error} />}
      {data !== undefined && own.length === 0 && (
        <Empty icon="snapshot" title="No snapshots of this VM">
          <p class="muted">Take one with the button above; the VM stands still for a moment.</p>
        </Empty>
      )}
      {own.length > 0 && (
        <>
          <Table
            label="Snapshots of this VM"
            columns={[
              "Name",
              ["Has", "wide"],
              ["Size", "num wide"],
              ["Taken", "num wide"],
              ACTIONS,
            ]}
          >
            {own.toReversed().map((snapshot) => (
              <tr key={snapshot.id}>
                <td class="strong">
                  <Foreign text={snapshot.name ?? snapshot.id} />
                  {snapshot.id === vm.snapshot && (
                    <span class="small muted block">where this VM comes from</span>
                  )}
                </td>
                <td class="wide">{snapshot.memory ? "memory and disk" : "disk"}</td>
                <td class="num wide">{bytes(snapshot.sizes.stored)}</td>
                <td class="num wide" title={moment(snapshot.createdAt)}>
                  {ago(snapshot.createdAt, now)}
                </td>
                <td>
                  <SnapshotActions snapshot={snapshot} back={[vm]} onGone={refresh} />
                </td>
              </tr>
            ))}
          </Table>
          <p class="small below">
            <a href={to("snapshots")}>All snapshots, as a tree</a>
          </p>
        </>
      )}
    </>
  );
}
