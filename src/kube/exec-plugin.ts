/** Credentials that a program hands out (`exec` of a kubeconfig): cloud providers' logins. */
import { delimiter, resolve } from "node:path";
import { VmsanError } from "../model/errors.ts";
import { execCredentialSchema } from "../schema/kubeconfig.ts";
import type { KubeconfigUser } from "../schema/kubeconfig.ts";
import { validate } from "../schema/validate.ts";
import { run } from "../util/run.ts";
import type { Identity, TlsIdentity } from "./identity.ts";

/** Before its end a credential is fetched anew, in milliseconds. */
const EARLY_MS = 60_000;
/** How long a program may take, in milliseconds: it may ask people something in a browser. */
const LIMIT_MS = 120_000;

type Plugin = NonNullable<KubeconfigUser["exec"]>;

/** What is kept of a program's answer. */
interface Kept {
  token: string | undefined;
  expires: number;
  tls: TlsIdentity;
}

async function ask(plugin: Plugin, dir: string, tls: TlsIdentity): Promise<Kept> {
  const { command, args, env, apiVersion = "client.authentication.k8s.io/v1" } = plugin;
  const info = JSON.stringify({ kind: "ExecCredential", apiVersion, spec: { interactive: false } });
  const file = command.includes("/") ? resolve(dir, command) : command;
  const result = await run(file, args ?? [], {
    env: {
      ...process.env,
      PATH: process.env["PATH"] ?? ["/usr/local/bin", "/usr/bin", "/bin"].join(delimiter),
      ...Object.fromEntries((env ?? []).map(({ name, value }) => [name, value])),
      KUBERNETES_EXEC_INFO: info,
    },
    timeoutMs: LIMIT_MS,
  });
  if (result.code !== 0) {
    throw new VmsanError({
      code: "ERR_NODE_KUBECONFIG",
      message: `The kubeconfig's plugin ${command} gave no credentials`,
      why: result.stderr.slice(-500) || `It ended with status ${result.code}.`,
      fix: "Run it by hand; log in where it wants that.",
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(result.stdout);
  } catch {
    // No JSON: said by the check below.
    value = undefined;
  }
  const { status } = validate(
    execCredentialSchema,
    value,
    `output of ${command}`,
    "ERR_NODE_KUBECONFIG",
  );
  const { token, expirationTimestamp, clientCertificateData: cert, clientKeyData: key } = status;
  const expires = expirationTimestamp === undefined ? Infinity : Date.parse(expirationTimestamp);
  return {
    token,
    expires: Number.isNaN(expires) ? Infinity : expires,
    tls: cert === undefined || key === undefined ? tls : { ...tls, cert, key },
  };
}

/** An identity's parts that a plugin fills in. @throws ERR_NODE_KUBECONFIG when it gives nothing */
export async function pluginCredentials(
  plugin: Plugin,
  dir: string,
  tls: TlsIdentity,
): Promise<Pick<Identity, "headers" | "refused" | "tls">> {
  let kept = await ask(plugin, dir, tls);
  let asking: Promise<void> | undefined;
  return {
    tls: () => kept.tls,
    headers: async () => {
      if (Date.now() > kept.expires - EARLY_MS) {
        asking ??= ask(plugin, dir, tls)
          .then((next) => void (kept = next))
          .finally(() => (asking = undefined));
        await asking;
      }
      return kept.token === undefined ? {} : { authorization: `Bearer ${kept.token}` };
    },
    refused: () => {
      const mayHelp = kept.expires !== 0;
      kept = { ...kept, expires: 0 };
      return mayHelp;
    },
  };
}
