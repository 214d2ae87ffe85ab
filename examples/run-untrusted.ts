/** Runs code from elsewhere: no network, little memory, ten seconds, then nothing is left of it. */
import { Vmsan, VmsanError } from "../src/index.ts";

const code = process.argv[2] ?? "while (<STDIN>) { print scalar reverse }";
const vmsan = new Vmsan();
try {
  const vm = await vmsan.create({
    runtime: "base",
    memory: "256m",
    networkPolicy: "deny-all",
    // Removed as soon as this process is gone, however it ends.
    ephemeral: true,
  });
  try {
    const result = await vm.exec(["perl", "-e", code], { input: "olleh", timeoutMs: 10_000 });
    process.stdout.write(result.stdout);
    process.stderr.write(result.stderr);
    console.error(result.timedOut ? "timed out" : `status ${result.exitCode}`);
  } finally {
    await vm.remove();
  }
} catch (error) {
  if (!(error instanceof VmsanError)) throw error;
  console.error(`${error.message} [${error.code}]\n  why: ${error.why}\n  fix: ${error.fix}`);
  process.exitCode = 1;
}
