/** Snapshots as the tree that they are: what was taken of what, and which VMs came of it. */
import { useState } from "preact/hooks";
import type { SnapshotView, VmView } from "../../model/api.ts";
import { call, part, work } from "../api/client.ts";
import {
  AskText,
  Button,
  Confirm,
  Dialog,
  Empty,
  Failure,
  Foreign,
  PageHead,
  Status,
} from "../parts/basics.tsx";
import { Icon } from "../parts/icon.tsx";
import { useAsk, useNow } from "../state/ask.ts";
import type { Asked } from "../state/ask.ts";
import { ago, bytes, moment, plain, shortImage } from "../state/format.ts";
import { go, to } from "../state/route.ts";
import { useStore } from "../state/store.ts";
import { events, vmName, vms } from "../state/vms.ts";
import { doWork } from "../state/work.ts";

/** All snapshots, asked for again when one is taken or removed. */
export function useSnapshots(): Asked<{ snapshots: SnapshotView[] }> {
  const last = useStore(events).find(({ type }) => type.startsWith("snapshot"))?.seq ?? 0;
  return useAsk("/v1/snapshots", undefined, last);
}

const nameOf = (snapshot: SnapshotView): string => snapshot.name ?? snapshot.id;

/** A VM of a snapshot, which goes on where it was taken. */
async function forkSnapshot(snapshot: SnapshotView, name: string): Promise<void> {
  const made = await doWork(`VM of ${nameOf(snapshot)}`, (onProgress, signal) =>
    work<VmView[]>("POST", `/v1/snapshots/${part(snapshot.id)}/vms`, {
      body: name === "" ? {} : { name },
      onProgress,
      signal,
    }),
  );
  const first = made?.[0];
  if (first !== undefined) go(["vms", first.id]);
}

/** Put a VM back to a snapshot. */
async function restore(vm: Pick<VmView, "id" | "name">, snapshot: SnapshotView): Promise<void> {
  await doWork(`Put ${vmName(vm)} back`, (onProgress, signal) =>
    work<VmView>("POST", `/v1/vms/${part(vm.id)}/restore`, {
      body: { snapshot: snapshot.id },
      onProgress,
      signal,
    }),
  );
}

/** What can be done with a snapshot. @param vm which can go back to it */
export function SnapshotActions(props: {
  snapshot: SnapshotView;
  back: readonly VmView[];
  onGone: () => void;
}) {
  const { snapshot, back } = props;
  const [asked, setAsked] = useState<"fork" | "back" | "remove">();
  const close = (): void => setAsked(undefined);
  return (
    <span class="tools">
      <Button icon="fork" label="New VM" onClick={() => setAsked("fork")} />
      {back.length > 0 && <Button icon="back" label="Go back" onClick={() => setAsked("back")} />}
      <Button
        kind="quiet"
        bare
        icon="trash"
        label={`Remove snapshot ${nameOf(snapshot)}`}
        onClick={() => setAsked("remove")}
      />
      {asked === "fork" && (
        <AskText
          title={`New VM of ${nameOf(snapshot)}`}
          label="Name"
          help={
            snapshot.memory
              ? "It goes on where the snapshot was taken, with an identity and addresses of its own."
              : "It boots from the snapshot's disk."
          }
          action="Make it"
          optional
          onClose={close}
          onText={(name) => void forkSnapshot(snapshot, name)}
        />
      )}
      {asked === "back" && (
        <Dialog title={`Go back to ${nameOf(snapshot)}`} onClose={close}>
          <p>
            The VM's memory and disk become those of the snapshot; what came later is lost unless
            there is a snapshot of it.
          </p>
          <div class="actions">
            {back.map((vm) => (
              <Button
                key={vm.id}
                kind="danger"
                icon="back"
                label={`Put ${plain(vmName(vm))} back`}
                onClick={() => {
                  close();
                  void restore(vm, snapshot);
                }}
              />
            ))}
          </div>
        </Dialog>
      )}
      {asked === "remove" && (
        <Confirm
          title={`Remove ${nameOf(snapshot)}?`}
          text="VMs that were made of it stay as they are."
          action="Remove"
          onClose={close}
          onConfirm={() =>
            void doWork(`Remove ${nameOf(snapshot)}`, async (_, signal) => {
              await call("DELETE", `/v1/snapshots/${part(snapshot.id)}`, { signal });
              props.onGone();
            })
          }
        />
      )}
    </span>
  );
}

interface Tree {
  all: readonly SnapshotView[];
  vms: readonly VmView[];
  now: number;
  onGone: () => void;
}

function Node({ snapshot, tree }: { snapshot: SnapshotView; tree: Tree }) {
  const children = tree.all.filter(({ parent }) => parent === snapshot.id);
  const made = tree.vms.filter((vm) => vm.snapshot === snapshot.id);
  const back = tree.vms.filter((vm) => vm.id === snapshot.vm.id || vm.snapshot === snapshot.id);
  const { stored, shared } = snapshot.sizes;
  return (
    <li>
      <div class="node">
        <Icon name="snapshot" />
        <div class="node-text">
          <p>
            <span class="strong">
              <Foreign text={nameOf(snapshot)} />
            </span>{" "}
            <span class="muted">
              of <bdi>{plain(snapshot.vm.name ?? snapshot.vm.id)}</bdi>,{" "}
              {snapshot.memory ? "memory and disk" : "disk"}
            </span>
          </p>
          <p class="small muted" title={moment(snapshot.createdAt)}>
            {ago(snapshot.createdAt, tree.now)}, {bytes(stored)}
            {shared > 0 && `, of which ${bytes(shared)} shared`}
          </p>
        </div>
        <SnapshotActions snapshot={snapshot} back={back} onGone={tree.onGone} />
      </div>
      {(made.length > 0 || children.length > 0) && (
        <ul>
          {made.map((vm) => (
            <li key={vm.id}>
              <div class="node">
                <Icon name="vm" />
                <p class="node-text">
                  <a href={to("vms", vm.id)}>
                    <Foreign text={vmName(vm)} />
                  </a>{" "}
                  <Status of={vm.status} />
                </p>
              </div>
            </li>
          ))}
          {children.map((child) => (
            <Node key={child.id} snapshot={child} tree={tree} />
          ))}
        </ul>
      )}
    </li>
  );
}

/** The page. */
export function SnapshotsPage() {
  const { data, error, refresh } = useSnapshots();
  const { list = [] } = useStore(vms);
  const now = useNow(10_000);
  const all = data?.snapshots ?? [];
  const known = new Set(all.map(({ id }) => id));
  const roots = all.filter(({ parent }) => parent === undefined || !known.has(parent));
  // What they are all made of comes first.
  const images = [
    ...new Set(roots.map(({ image, runtime }) => runtime ?? shortImage(image?.name ?? ""))),
  ];
  const tree: Tree = { all, vms: list, now, onGone: refresh };
  return (
    <>
      <PageHead title="Snapshots" />
      {error !== undefined && <Failure error={error} />}
      {data !== undefined && all.length === 0 && (
        <Empty icon="snapshot" title="No snapshots yet">
          <p class="muted">
            A snapshot of a VM has its memory and disk at one moment; VMs made of it go on from
            there. One is taken on the page of a VM.
          </p>
        </Empty>
      )}
      {images.map((image) => (
        <section class="section" key={image}>
          <h2 class="tree-root">
            <Icon name="image" /> {image}
          </h2>
          <ul class="tree">
            {roots
              .filter((one) => (one.runtime ?? shortImage(one.image?.name ?? "")) === image)
              .map((one) => (
                <Node key={one.id} snapshot={one} tree={tree} />
              ))}
          </ul>
        </section>
      ))}
    </>
  );
}
