/** `vmsan create`: make a VM and keep it. */
import type { Command } from "commander";
import { VmsanError } from "../../model/errors.ts";
import { command, interruptSignal, runs, withoutSeparator } from "../command.ts";
import { addCreateFlags, createOptions } from "../create-flags.ts";
import type { CreateFlags } from "../create-flags.ts";
import { warnOfAssumedKvm } from "../host-warning.ts";
import { progressView, silent } from "../progress.ts";
import { imageIn } from "../words/image-word.ts";
import { createReply } from "../vm-reply.ts";

interface Flags extends CreateFlags {
  connect?: boolean;
  silent?: boolean;
  snapshot?: string;
  cold?: boolean;
  count?: string;
}

/** The definition. */
export function createCommand(): Command {
  const target = command("create [command...]", "make a VM and wait until it can run commands")
    .option(
      "--from-image <ref>",
      "OCI image: node:22, oci:DIR, docker-archive:FILE, rootfs:DIR ...",
    )
    .option("--runtime <name>", "base, node22, node24, python3.13 or your own (default: base)")
    .option("--rootfs <path>", "boot from this ext4 image")
    .option("--snapshot <id>", "go on where a snapshot was taken")
    .option("--cold", "with --snapshot: boot from its disk instead")
    .option("-n, --count <n>", "with --snapshot: that many VMs")
    .option("--connect", "open a shell once it is ready")
    .option("--silent", "print nothing but errors")
    .passThroughOptions();
  addCreateFlags(target);
  return runs<Flags>(target, async (context, rest: string[]) => {
    const { flags, output } = context;
    const named = namesNothing(flags) && !target.isSeparated ? imageIn(rest) : undefined;
    const argv = withoutSeparator(named === undefined ? rest : rest.slice(1));
    if (flags.rootfs !== undefined && flags.fromImage !== undefined) {
      throw new VmsanError({
        code: "ERR_VALIDATION_FLAGS",
        message: "Cannot use --rootfs together with --from-image",
        why: "Both say what is on the VM's disk.",
        fix: "Give one of them.",
      });
    }
    const options = createOptions(named === undefined ? flags : { ...flags, fromImage: named });
    if (flags.snapshot === undefined && (flags.cold === true || flags.count !== undefined)) {
      throw new VmsanError({
        code: "ERR_VALIDATION_FLAGS",
        message: `Cannot use ${flags.cold === true ? "--cold" : "--count"} without --snapshot`,
        why: "It says how VMs are made of a snapshot.",
        fix: "Add --snapshot ID, or leave it out.",
      });
    }
    if (flags.connect === true) (await import("../session/shell.ts")).requireTerminal();
    warnOfAssumedKvm(output);
    if (flags.snapshot !== undefined) {
      options.snapshot = flags.snapshot;
      if (flags.cold === true) options.cold = true;
      if (flags.count !== undefined) {
        if (argv.length > 0 || flags.connect === true) throw oneOnly();
        const { makeMany } = await import("./snapshots/snapshot.ts");
        const { snapshot, count } = flags;
        return await makeMany(context, (vmsan, work) =>
          vmsan.clone(snapshot, { ...options, count }, work),
        );
      }
    }
    const vmsan = await context.vmsan();
    const view = flags.silent === true ? silent : progressView(output, false);
    const interrupt = interruptSignal();
    let id: string | undefined;
    try {
      const vm = await vmsan.create(options, {
        onProgress: view.sink,
        signal: interrupt.signal,
        onVm: (made) => (id = made),
      });
      view.close();
      if (flags.silent !== true) output.result(createReply(vm.view), vm.id);
      output.detail(`${vm.view.driver} (${vm.view.accelerator}): ${vm.view.driverReason}`);
      if (vm.view.networkReason !== undefined) output.detail(vm.view.networkReason);
      if (argv.length > 0) {
        const { execInTerminal } = await import("../session/exec.ts");
        const status = await execInTerminal(vm, { argv }, output);
        const plain = named === undefined && namesNothing(flags);
        if (status === 127 && plain && !output.json) {
          output.note(
            `  If ${argv[0]} is an image: vmsan create --from-image ${argv[0]}`,
            `  ${vm.id} stays: vmsan rm -f ${vm.id}`,
          );
        }
        return status;
      }
      if (flags.connect === true) {
        const { connectShell } = await import("../session/shell.ts");
        return await connectShell(vm, {});
      }
      return 0;
    } catch (error) {
      view.close();
      if (!interrupt.signal.aborted) throw error;
      if (id !== undefined) await vmsan.remove(id, { force: true }).catch(ignoreNotFound);
      return 128 + interrupt.number();
    } finally {
      interrupt.dispose();
    }
  });
}

/** Whether no option says what is in the VM. */
function namesNothing({ fromImage, runtime, rootfs, snapshot }: Flags): boolean {
  return (fromImage ?? runtime ?? rootfs ?? snapshot) === undefined;
}

/** Several VMs have no one command and no one shell. */
function oneOnly(): VmsanError {
  return new VmsanError({
    code: "ERR_VALIDATION_FLAGS",
    message: "Cannot use --count together with a command or --connect",
    why: "There would be several VMs to run it in.",
    fix: "Make the VMs first, then use `vmsan exec`.",
  });
}

/** The daemon may have removed an interrupted VM already. */
export function ignoreNotFound(error: unknown): void {
  if (error instanceof VmsanError && error.code === "ERR_VM_NOT_FOUND") return;
  throw error;
}
