/**
 * A daemon with the fake guest as a process of its own: `node bench/lib/fake-daemon.ts` prints its
 * VMSAN_DIR and serves until its standard input ends, which it does with whoever holds it.
 */
import { once } from "node:events";
import { fakeDaemon } from "../../test/exec-cases/fake-daemon.ts";

const daemon = await fakeDaemon();
console.log(daemon.dir);
process.stdin.resume();
// The starter ends it by the input, so that the guest is put away as well.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
await once(process.stdin, "end");
await daemon.close();
process.exit(0);
