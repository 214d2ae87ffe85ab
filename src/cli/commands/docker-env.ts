/** `vmsan docker-env`: what Docker's clients need to find this engine. */
import type { Command } from "commander";
import { command, runs } from "../command.ts";

/** The definition. */
export function dockerEnvCommand(): Command {
  const target = command(
    "docker-env",
    "print what Docker's clients need to talk to vmsan serve --docker",
  );
  target.addHelpText("after", AFTER);
  return runs(target, async ({ output }) => {
    const { dockerSocket, vmsanDir } = await import("../../util/paths.ts");
    const host = `unix://${dockerSocket(vmsanDir())}`;
    const quoted = `'${host.replaceAll("'", "'\\\\''")}'`;
    // What testcontainers starts besides would have to reach the engine's socket from inside a VM.
    const lines = [`export DOCKER_HOST=${quoted}`, "export TESTCONTAINERS_RYUK_DISABLED=true"];
    output.result({ DOCKER_HOST: host, TESTCONTAINERS_RYUK_DISABLED: "true" }, lines.join("\n"));
  });
}

const AFTER = `
  vmsan serve --docker &
  eval "$(vmsan docker-env)"
  docker run --rm alpine echo hello
Or as a context:
  docker context create vmsan --docker "host=$DOCKER_HOST"`;
