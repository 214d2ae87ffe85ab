/** What stands in place of a tab that needs a running guest. */
import type { VmView } from "../../model/api.ts";
import type { VmStatus } from "../../model/vm.ts";
import { Button, Empty } from "../parts/basics.tsx";
import type { IconName } from "../parts/icon.tsx";
import { resumeVm, startVm } from "./actions.tsx";

/** What a state means, for who has not met it before; nothing for one that needs no words. */
export const MEANS: Partial<Record<VmStatus, string>> = {
  creating: "It is being made, and starts by itself.",
  paused: "Its programs stand still and keep their memory until it is resumed.",
  suspended: "Its memory is in a file. Its programs go on where they were once it is woken.",
  stopped: "It is switched off. Its files are kept; programs begin anew when it is started.",
  error: "It could not go on. Its files are kept, and it can be started again.",
};

/** How it is made to run, by state. */
const WAYS: Partial<Record<VmStatus, { label: string; run: (vm: VmView) => Promise<unknown> }>> = {
  paused: { label: "Resume", run: resumeVm },
  suspended: { label: "Wake", run: startVm },
  stopped: { label: "Start", run: startVm },
  error: { label: "Start", run: startVm },
};

const TITLES: Record<VmStatus, string> = {
  creating: "The VM is being made",
  running: "The VM runs",
  paused: "The VM is paused",
  suspended: "The VM is asleep",
  stopped: "The VM is stopped",
  error: "The VM has failed",
};

/** The note. @param icon of what would be here */
export function Halted({ vm, icon }: { vm: VmView; icon: IconName }) {
  const way = WAYS[vm.status];
  return (
    <Empty icon={icon} title={TITLES[vm.status]}>
      <p class="muted">{MEANS[vm.status]}</p>
      {way !== undefined && (
        <Button kind="primary" icon="play" label={way.label} onClick={() => void way.run(vm)} />
      )}
    </Empty>
  );
}
