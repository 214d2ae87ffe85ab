import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Argument, Command, Option } from "commander";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "../util/run.ts";
import { which } from "../util/which.ts";
import { completionScript, shells } from "./completion.ts";
import { describeCommand } from "./describe.ts";

/** A program with one of everything. */
function sample(): Command {
  const program = new Command("vmsan").version("1.0.0").option("--json", "one JSON object");
  const driver = new Option("--driver <name>", "which driver").choices(["auto", "qemu"]);
  program
    .command("run")
    .argument("<image>")
    .argument("[cmd...]")
    .addOption(driver)
    .option("-e, --env <A=B>", "it's");
  program.command("list").alias("ls").description("list VMs");
  program.command("stop").argument("<vm...>").description("stop VMs");
  program.command("exec").argument("<vm>").argument("<cmd...>");
  const image = program.command("image").alias("images").description("images");
  image.command("pull").argument("<ref>");
  image.command("rm").argument("<ref>");
  program.command("secret", { hidden: true });
  program.command("completion").addArgument(new Argument("<shell>").choices([...shells]));
  return program;
}

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "vmsan-completion-"));
  await mkdir(join(dir, "vms", "vm-00000001"), { recursive: true });
  await mkdir(join(dir, "here"));
  await writeFile(join(dir, "here", "a-file"), "");
  for (const shell of shells) {
    await writeFile(join(dir, shell), completionScript(describeCommand(sample()), shell));
  }
});
afterAll(() => rm(dir, { recursive: true }));

test("the command table as data: arguments, choices, aliases, without what is hidden", () => {
  const program = describeCommand(sample());
  expect(program.commands.map(({ name }) => name)).toEqual([
    "run",
    "list",
    "stop",
    "exec",
    "image",
    "completion",
  ]);
  expect(program.commands[0]?.options[0]).toMatchObject({
    long: "--driver",
    takesValue: true,
    choices: ["auto", "qemu"],
  });
  expect(program.commands[4]?.commands[1]?.path).toEqual(["vmsan", "image", "rm"]);
});

describe("bash", () => {
  test.each([
    [
      ["vmsan", "i"],
      ["image", "images"],
    ],
    [
      ["vmsan", "image", ""],
      ["pull", "rm"],
    ],
    [["vmsan", "images", "p"], ["pull"]],
    [
      ["vmsan", "--json", "image", ""],
      ["pull", "rm"],
    ],
    [["vmsan", "run", "--d"], ["--driver"]],
    [
      ["vmsan", "run", "--driver", ""],
      ["auto", "qemu"],
    ],
    [["vmsan", "run", "--driver", "auto", "--en"], ["--env"]],
    [["vmsan", "stop", ""], ["vm-00000001"]],
    [["vmsan", "stop", "x", "vm"], ["vm-00000001"]],
    [["vmsan", "exec", "vm-00000001", "a"], ["a-file"]],
    [
      ["vmsan", "completion", ""],
      ["bash", "zsh", "fish"],
    ],
    [["vmsan", "run", "-e", "A=1", "a"], ["a-file"]],
    [["vmsan", "run", "img", "--", "--e"], []],
    [["vmsan", "sec"], []],
  ])("%j → %j", async (words, offered) => {
    const script = `. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vmsan; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = await run("bash", ["-c", script, "-", join(dir, "bash"), ...words], {
      cwd: join(dir, "here"),
      env: { ...process.env, VMSAN_DIR: dir },
    });
    expect(stderr).toBe("");
    expect(stdout.split("\n").filter(Boolean)).toEqual(offered);
  });
});

const fish = await which("fish");
test.skipIf(fish === undefined)("fish (skipped when it is not installed)", async () => {
  const offered = async (line: string): Promise<string[]> => {
    const command = `source ${join(dir, "fish")}; complete -C "${line}"`;
    const result = await run("fish", ["--no-config", "-c", command], {
      cwd: join(dir, "here"),
      env: { ...process.env, VMSAN_DIR: dir, HOME: dir },
    });
    return result.stdout
      .split("\n")
      .map((text) => text.split("\t")[0] ?? "")
      .filter(Boolean);
  };
  expect(await offered("vmsan image ")).toEqual(["pull", "rm"]);
  expect(await offered("vmsan stop ")).toEqual(["vm-00000001"]);
  expect(await offered("vmsan run --dri")).toEqual(["--driver"]);
});

const zsh = await which("zsh");
test.skipIf(zsh === undefined)(
  "zsh accepts its script (skipped when it is not installed)",
  async () => {
    const script = `autoload -U compinit && compinit -D; source ${join(dir, "zsh")}; whence -w _vmsan`;
    const result = await run("zsh", ["-f", "-c", script], { env: { ...process.env, HOME: dir } });
    expect(result.stdout.trim()).toBe("_vmsan: function");
  },
);
