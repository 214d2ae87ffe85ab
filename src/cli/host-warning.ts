/** What a command says when its environment overrides what vmsan would find out. */
import type { Output } from "./output.ts";

/** Warn of VMSAN_KVM=assume, on standard error: a VM may hang or die where KVM does not work. */
export function warnOfAssumedKvm(output: Output): void {
  if (process.env["VMSAN_KVM"] !== "assume") return;
  output.note("warning: VMSAN_KVM=assume: KVM is used without trying first whether it works here");
}
