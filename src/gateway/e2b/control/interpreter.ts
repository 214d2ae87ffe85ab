/** The server that runs code for E2B's code interpreter clients: put into a sandbox, started and waited for. */
import { createReadStream } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { makeDirectory } from "../../../agent/files.ts";
import type { Vm } from "../../../client/vm.ts";
import { interpreterSource } from "../../../util/package.ts";
import { E2bError } from "../errors.ts";

/** The runtime that has what the server needs. */
export const INTERPRETER_RUNTIME = "code-interpreter";
/** The port that those clients ask. */
const PORT = 49_999;
/** Where the server's files lie in the guest. */
const PLACE = "/usr/local/lib/vmsan-interpreter";
/** How long it may take until it answers, in seconds: emulated guests are slow. */
const READY_S = 300;

/**
 * Start it as the sandbox's own user; its first kernel goes on starting behind the answer. Nothing happens
 * in a sandbox of another runtime.
 * @throws timeout when it does not answer
 */
export async function startInterpreter(vm: Vm): Promise<void> {
  if (vm.view.runtime !== INTERPRETER_RUNTIME) return;
  const source = interpreterSource();
  const names = (await readdir(source)).filter((name) => /\.(?:py|mjs)$/.test(name));
  await makeDirectory(vm.transport, PLACE, { parents: true, mode: 0o755 });
  await Promise.all(
    names.map(async (name) => {
      const content = createReadStream(join(source, name));
      await vm.writeFile(`${PLACE}/${name}`, content, { user: "root", mode: 0o644 });
    }),
  );
  const argv = ["/usr/bin/python3", `${PLACE}/server.py`, String(PORT)];
  await vm.spawn(argv, { stdin: false, detach: true, label: "code-interpreter" }).started;
  const patience = ["--retry", "1000", "--retry-connrefused", "--retry-delay", "1"];
  const { exitCode } = await vm.exec(
    ["/usr/bin/curl", "-sf", ...patience, `http://127.0.0.1:${PORT}/health`],
    { timeoutMs: READY_S * 1000 },
  );
  if (exitCode !== 0) throw new E2bError("unavailable", "the code interpreter did not start", 503);
}
