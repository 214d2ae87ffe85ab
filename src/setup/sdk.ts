/**
 * Setup and the doctor as the SDK has them: a VMSAN_DIR instead of a layout, and loaded when they
 * are called, because most programs never do.
 */
import type { DoctorOptions } from "../doctor/doctor.ts";
import type { DoctorReport } from "../model/doctor.ts";
import { layoutOf, vmsanDir } from "../util/paths.ts";
import type { PlannedItem, SetupOptions, SetupReport } from "./setup.ts";

/** Where: an absolute path; default: VMSAN_DIR, else ~/.vmsan. */
export interface HostOptions {
  dir?: string;
}

/** What {@link planSetup} and {@link runSetup} take. */
export type HostSetupOptions = HostOptions & Omit<SetupOptions, "layout">;

/** What {@link runDoctor} takes. */
export type HostDoctorOptions = HostOptions & Omit<DoctorOptions, "layout" | "checks">;

/** The options with the layout that they mean. */
function withLayout<Options extends HostOptions>(
  options: Options,
): Options & { layout: ReturnType<typeof layoutOf> } {
  return { ...options, layout: layoutOf(options.dir ?? vmsanDir()) };
}

/** What {@link runSetup} would do: each item, whether it is there, and what it would fetch. */
export async function planSetup(options: HostSetupOptions = {}): Promise<PlannedItem[]> {
  const impl = await import("./setup.ts");
  return await impl.planSetup(withLayout(options));
}

/**
 * Get what VMs need, as `vmsan setup` does; what is there is kept.
 * @returns every item with its outcome: one that fails does not stop the others
 */
export async function runSetup(options: HostSetupOptions = {}): Promise<SetupReport> {
  const impl = await import("./setup.ts");
  return await impl.runSetup(withLayout(options));
}

/** Check this host as `vmsan doctor` does. `fix` cleans up what dead processes left. */
export async function runDoctor(options: HostDoctorOptions = {}): Promise<DoctorReport> {
  const impl = await import("../doctor/doctor.ts");
  return await impl.runDoctor(withLayout(options));
}
