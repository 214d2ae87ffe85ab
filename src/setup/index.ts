/** What other folders use of setup/. */
export { writeBundle, type WriteBundleOptions } from "./bundle.ts";
export {
  planSetup,
  runSetup,
  type PlannedItem,
  type SetupItem,
  type SetupOptions,
  type SetupReport,
} from "./setup.ts";
