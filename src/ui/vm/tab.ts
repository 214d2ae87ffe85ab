/** What every tab of a VM's page is given. */
import type { VmView } from "../../model/api.ts";

/** A VM, and where in the tab the user is. */
export interface TabProps {
  vm: VmView;
  /** What stands behind the tab in the address. */
  rest: string[];
}
