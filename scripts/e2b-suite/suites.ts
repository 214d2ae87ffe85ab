/** The two suites: which files are tests of a server, and how they are run. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** How one SDK's tests are run. */
export interface Suite {
  /** The SDK's folder in the repository; its tests are in `tests`. */
  folder: string;
  isTest: (name: string) => boolean;
  /** Why a file of tests says nothing of a server; undefined when it does. */
  besides: (name: string, text: string) => string | undefined;
  /**
   * The command that runs the files.
   * @param root this repository @param scratch a directory for its own files
   * @param report where the results are written
   */
  command: (root: string, scratch: string, report: string, names: string[]) => Promise<string[]>;
  /** What was tested, as the page names it. */
  version: (source: string) => Promise<string>;
}

/** A test's time limit, in seconds: guests are emulated where there is no KVM. */
const LIMIT_S = 120;
/** Tests at once. */
const WORKERS = process.env["E2B_SUITE_WORKERS"] ?? "1";

async function declaredVersion(path: string): Promise<string> {
  return /"?version"?\s*[=:]\s*"([^"]+)"/.exec(await readFile(path, "utf8"))?.[1] ?? "unknown";
}

const ANSWERS_ITSELF = "answers its own requests";
const WANTS_DEFAULTS = "tests the SDK alone, without the variables that name a server";

/** Run by our Vitest. @param setupFiles what the suite's own configuration loads first */
function byVitest(setupFiles: readonly string[]): Suite["command"] {
  return async (root, scratch, report, names) => {
    const config = join(scratch, "vitest.config.mjs");
    const test = {
      testTimeout: LIMIT_S * 1000,
      hookTimeout: LIMIT_S * 1000,
      maxWorkers: Number(WORKERS),
      isolate: true,
      setupFiles,
    };
    await writeFile(config, `export default ${JSON.stringify({ test })};\n`);
    return [
      join(root, "node_modules/.bin/vitest"),
      "run",
      `--config=${config}`,
      "--root=.",
      "--reporter=json",
      `--outputFile=${report}`,
      ...names.map((name) => `tests/${name}`),
    ];
  };
}

const js: Suite = {
  folder: "packages/js-sdk",
  isTest: (name) => name.endsWith(".test.ts"),
  besides: (name, text) => {
    if (!/^(api|sandbox|template)\//.test(name)) return "tests the SDK alone";
    if (/from 'msw/.test(text)) return ANSWERS_ITSELF;
    if (name === "sandbox/urls.test.ts") return WANTS_DEFAULTS;
    return undefined;
  },
  command: byVitest(["tests/globalFetchFallback.setup.ts"]),
  version: async (source) =>
    `JavaScript, e2b ${await declaredVersion(join(source, "package.json"))}`,
};

const python: Suite = {
  folder: "packages/python-sdk",
  isTest: (name) => /(?:^|\/)test_[^/]*\.py$/.test(name),
  besides: (name, text) => {
    if (!/^(a?sync)\//.test(name)) return "tests the SDK alone";
    if (name.endsWith("test_config_propagation.py")) return WANTS_DEFAULTS;
    if (!/\b(?:async_)?(?:sandbox|sandbox_factory|build|template)\b/.test(text))
      return "tests the SDK alone";
    return undefined;
  },
  command: async (_root, _scratch, report, names) =>
    await Promise.resolve([
      process.env["E2B_PYTHON"] ?? "python3",
      "-m",
      "pytest",
      "-q",
      "--no-header",
      "--tb=line",
      ...(WORKERS === "1" ? [] : ["-n", WORKERS]),
      "-o",
      `timeout=${LIMIT_S}`,
      `--junitxml=${report}`,
      ...names.map((name) => `tests/${name}`),
    ]),
  version: async (source) => `Python, e2b ${await declaredVersion(join(source, "pyproject.toml"))}`,
};

/** The suites of the repository of the code interpreter. */
const interpreterJs: Suite = {
  ...js,
  folder: "js",
  command: byVitest([]),
  besides: (name) => {
    if (name.startsWith("runtimes/")) return "tests the SDK alone";
    if (name === "sandboxUrl.test.ts") return WANTS_DEFAULTS;
    return undefined;
  },
  version: async (source) =>
    `Code interpreter in JavaScript, ${await declaredVersion(join(source, "package.json"))}`,
};

const interpreterPython: Suite = {
  ...python,
  folder: "python",
  besides: (name) => (name === "test_sandbox_url.py" ? WANTS_DEFAULTS : undefined),
  command: async (...given) => [...(await python.command(...given)), "-n", "0"],
  version: async (source) =>
    `Code interpreter in Python, ${await declaredVersion(join(source, "pyproject.toml"))}`,
};

/** The suites by name: of E2B's repository, and of the code interpreter's. */
export const suites: Record<string, Suite | undefined> = {
  js,
  python,
  "interpreter-js": interpreterJs,
  "interpreter-python": interpreterPython,
};
