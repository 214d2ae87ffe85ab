/** What other folders use of runtimes/. */
export { builtinRuntimes, findRuntime, readCatalogue, type Runtime } from "./catalogue.ts";
export { configOver, type RuntimeConfig } from "./config.ts";
export {
  ensureRuntime,
  importRuntime,
  listBuiltRuntimes,
  pruneRuntimes,
  sweepRuntimes,
  type BuiltRuntime,
  type EnsureRuntimeOptions,
  type ReadyRuntime,
} from "./store.ts";
