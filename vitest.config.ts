import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: "unit",
          include: ["src/**/*.test.ts", "test/*.test.ts"],
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
          name: "e2e",
          include: ["test/e2e/**/*.test.ts"],
          globalSetup: ["test/e2e/global-setup.ts"],
          // Tests say themselves when a template may be made behind their backs.
          env: { VMSAN_WARM: "off" },
          testTimeout: 240_000,
          hookTimeout: 240_000,
          // Two cores emulate the guests: one file at a time keeps boots inside their bounds.
          fileParallelism: false,
        },
      },
      {
        test: {
          name: "install",
          include: ["test/install/**/*.test.ts"],
          env: { VMSAN_WARM: "off" },
          testTimeout: 240_000,
          hookTimeout: 240_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
