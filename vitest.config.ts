import { join } from "node:path";
import { configDefaults, defineConfig } from "vitest/config";

/** End-to-end tests of what the daemon does only in a moment in which the machine has nothing else to do. */
const quiet = ["warm", "ahead", "snapshot-kills"].map((name) => `test/e2e/snapshots/${name}.test.ts`);

/** End-to-end tests, in real guests. */
const e2e = {
  globalSetup: ["test/e2e/global-setup.ts"],
  // Tests say themselves when a template may be made behind their backs.
  env: { VMSAN_WARM: "off" },
  testTimeout: 240_000,
  hookTimeout: 240_000,
};

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["src/**/*.test.ts", "test/**/*.test.ts"],
          exclude: [...configDefaults.exclude, "test/e2e/**", "test/install/**"],
          // What tests start of the package takes its compiled code from where the command line does.
          env: { NODE_COMPILE_CACHE: join(import.meta.dirname, ".cache/compile") },
          // For a machine that has other work too.
          testTimeout: 240_000,
          hookTimeout: 240_000,
          expect: { poll: { timeout: 60_000 } },
          // Two, on two cores too: by default one of them would be left idle.
          maxWorkers: 2,
        },
      },
      {
        test: {
          ...e2e,
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          exclude: [...configDefaults.exclude, ...quiet],
          // Two cores emulate the guests, and a file of these keeps hardly more than one busy: it waits, and its
          // guests have one core each. Each stands on an installation of its own.
          maxWorkers: 2,
        },
      },
      // One at a time, when those are done.
      { test: { ...e2e, name: "e2e-quiet", include: quiet, fileParallelism: false } },
      {
        test: {
          name: "install",
          include: ["test/install/**/*.test.ts"],
          env: { VMSAN_WARM: "off" },
          testTimeout: 240_000,
          hookTimeout: 240_000,
          maxWorkers: 2,
        },
      },
    ],
  },
});
