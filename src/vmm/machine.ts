/** This host's processor as far as memory images depend on it. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

/** Model and features of the first processor, in one line. */
export function hostCpu(): string {
  const text = readFileSync("/proc/cpuinfo", "utf8").split("\n\n")[0] ?? "";
  const field = (name: string): string =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, "m").exec(text)?.[1]?.trim() ?? "";
  const model = field("model name") || `${field("CPU implementer")} ${field("CPU part")}`.trim();
  const features = field("flags") || field("Features");
  const sum = createHash("sha256").update(features.split(/\s+/).toSorted().join(" ")).digest("hex");
  return `${model || "unknown"} (features ${sum.slice(0, 8)})`;
}
