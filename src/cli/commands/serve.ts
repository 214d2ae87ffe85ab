/** `vmsan serve`: a gateway for programs on other machines. */
import { resolve } from "node:path";
import { Option } from "commander";
import type { Command } from "commander";
import { addClusterFlags, clusterOptions } from "../cluster-flags.ts";
import type { ClusterFlags } from "../cluster-flags.ts";
import { command, collectList, interruptSignal, runs } from "../command.ts";

interface ServeFlags extends ClusterFlags {
  listen?: string;
  tlsCert?: string;
  tlsKey?: string;
  behindProxy?: boolean;
  domain?: string[];
  metricsListen?: string;
  docker?: string | boolean;
  dockerCa?: string;
  mcpPolicy?: string;
  driver?: "auto" | "firecracker" | "qemu" | "fake";
}

/** The definition. */
export function serveCommand(): Command {
  const target = command("serve", "serve VMs to programs on other machines")
    .option("--listen <address>", "PORT or ADDRESS:PORT (127.0.0.1:7300)")
    .option("--tls-cert <file>", "certificate and chain, PEM; taken up again when it changes")
    .option("--tls-key <file>", "its private key, PEM")
    .option("--behind-proxy", "something in front of it speaks TLS")
    .option("--metrics-listen <address>", "serve /metrics here too, without a key; loopback only")
    .option("--mcp-policy <file>", "what agents may ask for at /mcp (docs/mcp.md)")
    .addOption(
      new Option("--driver <driver>", "of VMs whose maker names none").choices([
        "auto",
        "firecracker",
        "qemu",
        "fake",
      ]),
    )
    .option(
      "--domain <names>",
      "names it answers for, with the :PORT clients use; PORT-VM.NAME is a guest's port",
      collectList,
    )
    .option(
      "--docker [address]",
      "speak Docker's Engine API too: unix:///PATH or tcp://ADDRESS:PORT (a socket in VMSAN_DIR)",
    )
    .option("--docker-ca <file>", "with TLS: who has signed the clients' certificates, PEM");
  addClusterFlags(target).addHelpText("after", AFTER);
  return runs<ServeFlags>(target, async ({ flags, output }) => {
    const { tlsCert, tlsKey } = flags;
    const { checkTlsFiles } = await import("../../util/units.ts");
    checkTlsFiles(tlsCert, tlsKey);
    const interrupt = interruptSignal();
    const cluster = clusterOptions(flags);
    const { startGateway } = await import("../../gateway/gateway.ts");
    const gateway = await startGateway({
      ...(flags.listen === undefined ? {} : { listen: flags.listen }),
      ...(tlsCert === undefined || tlsKey === undefined
        ? {}
        : { tls: { cert: resolve(tlsCert), key: resolve(tlsKey) } }),
      ...(cluster === undefined ? {} : { cluster }),
      behindProxy: flags.behindProxy === true,
      domains: flags.domain ?? [],
      ...(flags.metricsListen === undefined ? {} : { metricsListen: flags.metricsListen }),
      ...(flags.mcpPolicy === undefined ? {} : { mcpPolicy: resolve(flags.mcpPolicy) }),
      driver: flags.driver ?? "auto",
      ...(flags.docker === undefined && flags.dockerCa === undefined
        ? {}
        : {
            docker: {
              ...(typeof flags.docker === "string" ? { listen: flags.docker } : {}),
              ...(flags.dockerCa === undefined ? {} : { clientCa: resolve(flags.dockerCa) }),
            },
          }),
    });
    const { url, metricsUrl, docker } = gateway;
    const also =
      (metricsUrl === undefined ? "" : `\nmetrics at ${metricsUrl}`) +
      (docker === undefined ? "" : `\nDocker's API on ${docker} (vmsan docker-env)`);
    output.result(
      {
        url,
        ...(metricsUrl === undefined ? {} : { metricsUrl }),
        ...(docker === undefined ? {} : { docker }),
      },
      `serving on ${url}${also}`,
    );
    await interrupt.come();
    await gateway.close();
    interrupt.dispose();
  });
}

const AFTER = `
Clients need a key (vmsan key create) and variables. For vmsan itself on another machine:
  export VMSAN_URL=http://127.0.0.1:7300
  export VMSAN_KEY=vmsan_...
For E2B's SDKs, unmodified (the key's text with e2b_ before it instead of vmsan_):
  export E2B_API_URL=http://127.0.0.1:7300
  export E2B_SANDBOX_URL=http://127.0.0.1:7300
  export E2B_VOLUME_API_URL=http://127.0.0.1:7300
  export E2B_API_KEY=e2b_...
See docs/serve.md.`;
