/** Builds the stand-in for Firecracker and its jailer, with or without planned faults. */
import { execFileSync } from "node:child_process";
import { appendFileSync, chmodSync, copyFileSync, mkdirSync } from "node:fs";
import { join, resolve } from "node:path";

const source = resolve(import.meta.dirname, "firecracker-standin");

/** Faults of the stand-in: what cmd/firecracker/main.go reads from the end of its own file. */
export interface Faults {
  version?: string;
  /** A request such as `PUT /vsock`, or `start`. */
  crashAt?: string;
  hangAt?: string;
  refuseAt?: string;
  bootMs?: number;
}

/** Why the stand-in cannot be used here; undefined when it can. */
export function whyNoStandin(): string | undefined {
  if (process.geteuid?.() !== 0) return "the jailer needs root";
  try {
    execFileSync("go", ["version"], { stdio: "ignore" });
    execFileSync("unshare", ["--mount", "--net", "--pid", "--fork", "true"], { stdio: "ignore" });
    return undefined;
  } catch {
    // No Go, or a container that makes no namespaces.
    return "it needs Go and the right to make namespaces";
  }
}

/** Compile a Go program of this repository statically. */
export function buildGo(dir: string, target: string, output: string): void {
  execFileSync("go", ["build", "-trimpath", "-buildvcs=false", "-o", output, target], {
    cwd: dir,
    env: { ...process.env, CGO_ENABLED: "0", GOFLAGS: "", GOTOOLCHAIN: "local" },
    stdio: ["ignore", "ignore", "inherit"],
  });
}

/** Compile both stand-ins into `dir`. */
export function buildStandin(dir: string): void {
  mkdirSync(dir, { recursive: true });
  buildGo(source, "./cmd/...", `${dir}/`);
}

/** A copy of both stand-ins whose Firecracker has these faults. */
export function withFaults(built: string, dir: string, faults: Faults): string {
  mkdirSync(dir, { recursive: true });
  for (const name of ["firecracker", "jailer"]) {
    copyFileSync(join(built, name), join(dir, name));
    chmodSync(join(dir, name), 0o755);
  }
  appendFileSync(join(dir, "firecracker"), `\nSTANDIN-FAULTS:${JSON.stringify(faults)}`);
  return dir;
}
