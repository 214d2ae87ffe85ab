/** What can be done with a VM as a whole. */
import type { SnapshotView, VmView } from "../../model/api.ts";
import { part, work } from "../api/client.ts";
import { AskText, Button, Confirm } from "../parts/basics.tsx";
import { go } from "../state/route.ts";
import { refreshVms, vmName } from "../state/vms.ts";
import { doCall, doWork } from "../state/work.ts";
import { useState } from "preact/hooks";

const path = (vm: VmView, rest = ""): string => `/v1/vms/${part(vm.id)}${rest}`;

/** Stop a VM: gracefully first. */
const stopVm = (vm: VmView): Promise<boolean> =>
  doCall(`Stop ${vmName(vm)}`, "POST", path(vm, "/stop"), {});

/** Remove a VM with its disk, running or not. */
const removeVm = (vm: VmView): Promise<boolean> =>
  doCall(`Remove ${vmName(vm)}`, "DELETE", path(vm, "?force=true"));

/** Start a stopped or sleeping VM. */
export async function startVm(vm: VmView): Promise<void> {
  await doWork(`Start ${vmName(vm)}`, (onProgress, signal) =>
    work<VmView>("POST", path(vm, "/start"), { body: {}, onProgress, signal }),
  );
}

/** Halt and let go on. */
const pauseVm = (vm: VmView): Promise<boolean> =>
  doCall(`Pause ${vmName(vm)}`, "POST", path(vm, "/pause"));
/** Let a paused VM go on. */
export const resumeVm = (vm: VmView): Promise<boolean> =>
  doCall(`Resume ${vmName(vm)}`, "POST", path(vm, "/resume"));

/** Put a VM to sleep: its memory goes to a file. */
async function suspendVm(vm: VmView): Promise<void> {
  await doWork(`Put ${vmName(vm)} to sleep`, (onProgress, signal) =>
    work<VmView>("POST", path(vm, "/suspend"), { body: {}, onProgress, signal }),
  );
}

/** A copy of a VM that goes on where it is now. */
async function forkVm(vm: VmView, name: string): Promise<void> {
  const made = await doWork(`Fork ${vmName(vm)}`, (onProgress, signal) =>
    work<VmView[]>("POST", path(vm, "/fork"), {
      body: name === "" ? {} : { name },
      onProgress,
      signal,
    }),
  );
  const first = made?.[0];
  if (first !== undefined) go(["vms", first.id]);
}

/** A snapshot of a VM. */
async function snapshotVm(vm: VmView, name: string): Promise<SnapshotView | undefined> {
  return await doWork(`Snapshot of ${vmName(vm)}`, (onProgress, signal) =>
    work<SnapshotView>("POST", path(vm, "/snapshots"), {
      body: name === "" ? {} : { name },
      onProgress,
      signal,
    }),
  );
}

/** The buttons of a VM's page. */
export function VmActions({ vm }: { vm: VmView }) {
  const [asked, setAsked] = useState<"remove" | "fork" | "snapshot">();
  const close = (): void => setAsked(undefined);
  const { status } = vm;
  const live = status === "running" || status === "paused";
  return (
    <>
      {status === "running" && (
        <Button icon="pause" label="Pause" onClick={() => void pauseVm(vm)} />
      )}
      {status === "paused" && (
        <Button icon="play" label="Resume" onClick={() => void resumeVm(vm)} />
      )}
      {status === "running" && (
        <Button
          icon="sleep"
          label="Sleep"
          title="Keep its memory in a file"
          onClick={() => void suspendVm(vm)}
        />
      )}
      {status === "suspended" && (
        <Button kind="primary" icon="play" label="Wake" onClick={() => void startVm(vm)} />
      )}
      {(status === "stopped" || status === "error") && (
        <Button kind="primary" icon="play" label="Start" onClick={() => void startVm(vm)} />
      )}
      {live && <Button icon="stop" label="Stop" onClick={() => void stopVm(vm)} />}
      {(live || status === "stopped" || status === "suspended") && (
        <Button icon="snapshot" label="Snapshot" onClick={() => setAsked("snapshot")} />
      )}
      {live && <Button icon="fork" label="Fork" onClick={() => setAsked("fork")} />}
      <Button kind="danger" icon="trash" label="Remove" onClick={() => setAsked("remove")} />
      {asked === "remove" && (
        <Confirm
          title={`Remove ${vmName(vm)}?`}
          text="Its disk goes with it. Snapshots that were taken of it stay."
          action="Remove"
          onClose={close}
          onConfirm={() => {
            void (async () => {
              if (!(await removeVm(vm))) return;
              await refreshVms();
              go(["vms"]);
            })();
          }}
        />
      )}
      {asked === "fork" && (
        <AskText
          title={`Fork ${vmName(vm)}`}
          label="Name of the copy"
          help="A second VM with the same memory and disk; both go on from here. Without a name it is called by its ID."
          action="Fork"
          optional
          onClose={close}
          onText={(name) => void forkVm(vm, name)}
        />
      )}
      {asked === "snapshot" && (
        <AskText
          title={`Snapshot of ${vmName(vm)}`}
          label="Name"
          help={
            live
              ? "Memory and disk as they are at this moment; the VM goes on. A name is not needed."
              : "The disk as it is. A name is not needed."
          }
          action="Take it"
          optional
          onClose={close}
          onText={(name) => void snapshotVm(vm, name)}
        />
      )}
    </>
  );
}
