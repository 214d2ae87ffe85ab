/** How a program that is given as text is run, in each language. */
import type { Vm } from "../../client/vm.ts";
import { VmsanError } from "../../model/errors.ts";

/** One way to run what is on standard input; words for it are put behind. */
interface Way {
  /** What the image must have. */
  readonly program: string;
  readonly argv: readonly string[];
}

/** A language: ways to run it, of which the first that the image has is taken; and an image that has one. */
interface Ways {
  readonly ways: readonly Way[];
  readonly image: string;
}

/** Programs that read their input to its end before they begin. */
const reading = (...argvs: readonly (readonly [string, ...string[]])[]): Way[] =>
  argvs.map((argv) => ({ program: argv[0], argv }));

/**
 * A shell that writes its input into a file in a directory of its own, `$d`, and does something with it there; `"$@"` are
 * the words.
 */
function viaFile(program: string, name: string, script: string): Way {
  const lines = ["d=$(mktemp -d) || exit", `trap 'rm -rf "$d"' EXIT`, `cat >"$d/${name}" || exit`];
  return { program, argv: ["sh", "-c", [...lines, script].join("\n"), program] };
}

/** What such a program makes of a file, run when it could be made. */
const compiled = (program: string, name: string, words: string): Way =>
  viaFile(program, name, `${program} ${words} "$d/${name}" && "$d/program" "$@" </dev/null`);

/** All of them. */
export const LANGUAGES = {
  python: { ways: reading(["python3", "-"], ["python", "-"]), image: "python:3.13" },
  javascript: {
    ways: reading(["node", "-"], ["bun", "run", "-"], ["deno", "run", "-A", "-"]),
    image: "node:24",
  },
  typescript: {
    ways: reading(
      ["node", "--input-type=module-typescript", "-"],
      ["bun", "run", "-"],
      ["deno", "run", "-A", "-"],
    ),
    image: "node:24",
  },
  shell: { ways: reading(["sh", "-s", "--"]), image: "debian:13" },
  bash: { ways: reading(["bash", "-s", "--"]), image: "debian:13" },
  ruby: { ways: reading(["ruby", "-"]), image: "ruby:3.4" },
  perl: { ways: reading(["perl", "-"]), image: "perl:5.42" },
  php: { ways: reading(["php", "--"]), image: "php:8.4-cli" },
  lua: { ways: reading(["lua", "-"], ["lua5.4", "-"], ["luajit", "-"]), image: "alpine:3.22" },
  julia: { ways: reading(["julia", "-"]), image: "julia:1.12" },
  r: {
    ways: [viaFile("Rscript", "program.R", 'Rscript "$d/program.R" "$@" </dev/null')],
    image: "r-base:4.5.1",
  },
  go: { ways: [compiled("go", "main.go", 'build -o "$d/program"')], image: "golang:1.26" },
  java: {
    ways: [viaFile("java", "Main.java", 'java "$d/Main.java" "$@" </dev/null')],
    image: "eclipse-temurin:25-jdk",
  },
  c: {
    ways: ["cc", "gcc", "clang"].map((name) => compiled(name, "program.c", '-o "$d/program"')),
    image: "gcc:15",
  },
  cpp: {
    ways: ["c++", "g++", "clang++"].map((name) => compiled(name, "program.cc", '-o "$d/program"')),
    image: "gcc:15",
  },
  rust: { ways: [compiled("rustc", "program.rs", '-o "$d/program"')], image: "rust:1.91" },
} as const satisfies Record<string, Ways>;

/** Name of a language. */
export type Language = keyof typeof LANGUAGES;

/** Whether the agent has not found what it was to start. */
const isMissing = (error: unknown): boolean =>
  error instanceof VmsanError && error.code === "ERR_AGENT_NOT_FOUND";

/** Whether a shell of the guest finds a program; false without a shell. */
async function finds(vm: Vm, program: string, signal: AbortSignal): Promise<boolean> {
  try {
    const argv = ["sh", "-c", 'command -v "$1" >/dev/null 2>&1', "sh", program];
    return (await vm.exec(argv, { signal })).exitCode === 0;
  } catch (error) {
    if (!isMissing(error)) throw error;
    return false;
  }
}

/**
 * Run a program by the first way that the guest has.
 * @param attempt given the words to start; its error where that is not there leads to the next way
 * @throws ERR_AGENT_NOT_FOUND when it has none
 */
export async function byFirstWay<T>(
  vm: Vm,
  language: Language,
  signal: AbortSignal,
  attempt: (argv: readonly string[]) => Promise<T>,
): Promise<T> {
  const { ways, image }: Ways = LANGUAGES[language];
  let last: unknown;
  for (const { program, argv } of ways) {
    if (argv[0] !== program && !(await finds(vm, program, signal))) continue;
    try {
      return await attempt(argv);
    } catch (error) {
      if (!isMissing(error)) throw error;
      last = error;
    }
  }
  throw new VmsanError(
    {
      code: "ERR_AGENT_NOT_FOUND",
      message: `This sandbox has no ${ways.map(({ program }) => program).join(", ")}`,
      why: "Its image does not bring it along.",
      fix: `Install it with run_command, or create a sandbox of an image that has it, e.g. ${image}.`,
    },
    last,
  );
}
