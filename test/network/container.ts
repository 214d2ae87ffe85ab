/** The table of attempts from inside a container of Docker's API: what its default network lets out is what every VM's does. */
import { execFileSync } from "node:child_process";
import { request } from "node:http";
import { basename, dirname } from "node:path";
import { startGateway } from "../../src/gateway/gateway.ts";

/** A container that runs, and the VM that it is. */
export interface TestContainer {
  vmId: string;
  /** Remove it, and end the engine. */
  remove: () => Promise<void>;
}

/** Start an engine and a container whose only program is a file of this host, which it runs. */
export async function startContainer(
  vmsanDir: string,
  program: string,
  ...words: string[]
): Promise<TestContainer> {
  const gateway = await startGateway({ dir: vmsanDir, listen: "127.0.0.1:0", docker: {} });
  const socketPath = (gateway.docker ?? "").replace("unix://", "");
  const ask = async (method: string, path: string, body?: Buffer | object): Promise<string> => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const call = request({ socketPath, method, path, agent: false }, (reply) => {
      let text = "";
      reply.setEncoding("utf8").on("data", (part: string) => (text += part));
      reply.on("end", () =>
        (reply.statusCode ?? 500) < 400 ? resolve(text) : reject(new Error(`${path}: ${text}`)),
      );
    });
    call.on("error", reject);
    call.end(body === undefined || Buffer.isBuffer(body) ? body : JSON.stringify(body));
    return await promise;
  };
  const tar = execFileSync("tar", ["-C", dirname(program), "-c", basename(program)], {
    maxBuffer: 256 << 20,
  });
  await ask("POST", "/images/create?fromSrc=-&repo=tool&tag=1", tar);
  // It serves until its input ends, which nobody here ends.
  const Cmd = [`/${basename(program)}`, ...words];
  const made = await ask("POST", "/containers/create", { Image: "tool:1", Cmd, OpenStdin: true });
  const { Id: id } = JSON.parse(made) as { Id: string };
  await ask("POST", `/containers/${id}/start`);
  const inspected = await ask("GET", `/containers/${id}/json`);
  return {
    vmId: (JSON.parse(inspected) as { Vmsan: { vm: string } }).Vmsan.vm,
    remove: async () => {
      await ask("DELETE", `/containers/${id}?force=1`);
      await gateway.close();
    },
  };
}
