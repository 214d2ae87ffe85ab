/** `vmsan run`: make a VM, run one command in it, remove it. */
import type { Command } from "commander";
import { VmsanError } from "../../model/errors.ts";
import type { Vm } from "../../client/vm.ts";
import type { Vmsan } from "../../client/vmsan.ts";
import { parseDuration } from "../../util/units.ts";
import { command, interruptSignal, runs, withoutSeparator } from "../command.ts";
import { addCreateFlags, createOptions } from "../create-flags.ts";
import type { CreateFlags } from "../create-flags.ts";
import { warnOfAssumedKvm } from "../host-warning.ts";
import { progressView } from "../progress.ts";
import { ignoreNotFound } from "./create.ts";

interface Flags extends CreateFlags {
  interactive?: boolean;
  tty?: boolean;
  entrypoint?: string;
}

/** The definition. */
export function runCommand(): Command {
  const target = command(
    "run <image> [command...]",
    "run a command in a new VM made from an image or runtime, then remove it",
  )
    .option("-i, --interactive", "pass standard input through, also from a terminal")
    .option("-t, --tty", "with a terminal")
    .option("--rm", "remove the VM at the end; run always does")
    .option("--entrypoint <command>", "instead of the image's entrypoint; empty for none")
    .passThroughOptions();
  addCreateFlags(target);
  return runs<Flags>(target, async (context, image: string, rest: string[]) => {
    const { flags, output } = context;
    const { timeout, ...create } = flags;
    const timeoutMs = timeout === undefined ? undefined : parseDuration(timeout);
    const options = { ...createOptions(create), image, ephemeral: true };
    const vmsan = await context.vmsan();
    warnOfAssumedKvm(output);
    const view = progressView(output, true);
    const interrupt = interruptSignal();
    let id: string | undefined;
    let vm: Vm | undefined;
    try {
      vm = await vmsan.create(options, {
        onProgress: view.sink,
        signal: interrupt.signal,
        onVm: (made) => (id = made),
      });
      view.close();
      interrupt.dispose();
      output.detail(
        `${vm.id}: ${vm.view.driver} (${vm.view.accelerator}): ${vm.view.driverReason}`,
      );
      output.detail(`${vm.id}: ${JSON.stringify(vm.view.timings)}`);
      const { execInTerminal } = await import("../session/exec.ts");
      return await execInTerminal(
        vm,
        {
          argv: vm.commandLine(withoutSeparator(rest), flags.entrypoint),
          ...(timeoutMs === undefined ? {} : { timeoutMs }),
          tty: flags.tty === true,
          interactive: flags.interactive === true,
        },
        output,
      );
    } catch (error) {
      if (!interrupt.signal.aborted) throw await ofVm(error, image, vmsan);
      return 128 + interrupt.number();
    } finally {
      view.close();
      interrupt.dispose();
      try {
        // Waits until nothing of the VM is left; the daemon would do it without us as well.
        if (id !== undefined) await vmsan.remove(id, { force: true }).catch(ignoreNotFound);
      } finally {
        vm?.letGo();
      }
    }
  });
}

/** An image that is not there, and is the name of a VM: the command for those is another one. */
async function ofVm(error: unknown, image: string, vmsan: Vmsan): Promise<unknown> {
  if (!(error instanceof VmsanError) || !error.code.startsWith("ERR_IMAGE_")) return error;
  // ERR_VM_NOT_FOUND, mostly: then it was meant as an image.
  const isVm = await vmsan.get(image).then(
    () => true,
    () => false,
  );
  if (!isVm) return error;
  const fix = `${image} is a VM: vmsan exec ${image} COMMAND`;
  return new VmsanError({ ...error.toJSON(), fix }, error);
}
