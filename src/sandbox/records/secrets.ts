/**
 * Secrets of VMs: checked, given placeholders, and kept. The values and the key of the VM's authority
 * are in one file of the VM's directory, mode 0600: a daemon that is started anew goes on with them,
 * and they go with the directory.
 */
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { rootCertificates } from "node:tls";
import type { GuestConfig } from "../../agent/config.ts";
import { VmsanError, errnoOf, messageOf } from "../../model/errors.ts";
import type { NetworkPolicy } from "../../model/policy.ts";
import type {
  KeptSecret,
  SecretMaterial,
  SecretRequest,
  SecretView,
  VmSecrets,
} from "../../model/secret.ts";
import type { VmRecord } from "../../model/vm.ts";
import {
  badSecret,
  formatSecretDomain,
  parseSecretDomain,
  secretPlaces,
} from "../../network/policy/secrets.ts";
import { authoritySubject, makeAuthority } from "../../network/secrets/authority.ts";
import { newPlaceholder } from "../../network/secrets/placeholder.ts";
import { parseSecretMaterial } from "../../schema/state.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import { networkHelperBinary } from "../../util/package.ts";

/** Name of the file in the VM's directory. */
const FILE = "secrets.json";

/** Fewest bytes of a value: what is shorter may stand anywhere by chance. */
const MIN_BYTES = 8;

/** Variables of an image that name a bundle of authorities. */
const BUNDLE_VARIABLES = new Set([
  "SSL_CERT_FILE",
  "REQUESTS_CA_BUNDLE",
  "PIP_CERT",
  "CURL_CA_BUNDLE",
  "GIT_SSL_CAINFO",
  "NODE_EXTRA_CA_CERTS",
  "CARGO_HTTP_CAINFO",
  "AWS_CA_BUNDLE",
  "NIX_SSL_CERT_FILE",
]);

/** Secrets as a VM's request has them. */
export interface SecretWishes {
  requests: readonly SecretRequest[];
  /** Absolute path of certificates to trust besides the host's. */
  caFile?: string | undefined;
}

/** A secret that can be used, with a placeholder. @throws ERR_VALIDATION_SECRET, ERR_VALIDATION_DOMAIN */
function keep(
  { name, value, domains, places = [...secretPlaces] }: SecretRequest,
  policy: NetworkPolicy,
): KeptSecret {
  const wrong = (why: string, fix: string): VmsanError =>
    badSecret(`Cannot use the secret ${name}`, why, fix);
  // eslint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(value)) {
    throw wrong("Its value is more than one line of text.", "Give a key or a token.");
  }
  if (Buffer.byteLength(value) < MIN_BYTES) {
    throw wrong(
      `Its value has fewer than ${MIN_BYTES} bytes, and could not be told from other text.`,
      "Give a longer one.",
    );
  }
  const given = domains.length > 0 ? domains : policy.allowedDomains;
  if (given.length === 0) {
    throw wrong(
      "It does not say to which domains it may be sent.",
      `Name them: --secret ${name}=env@api.example.com.`,
    );
  }
  const placeholder = newPlaceholder();
  return { name, domains: given.map(parseSecretDomain), places: [...new Set(places)], placeholder };
}

/**
 * The rules of a VM's secrets. @throws ERR_VALIDATION_SECRET, ERR_VALIDATION_DOMAIN,
 * ERR_VALIDATION_POLICY_CONFLICT
 */
export function secretRules(
  { requests }: SecretWishes,
  { policy, defaults }: Pick<VmRecord, "policy" | "defaults">,
): KeptSecret[] {
  if (requests.length > 0 && policy.mode === "none") {
    throw new VmsanError({
      code: "ERR_VALIDATION_POLICY_CONFLICT",
      message: "Cannot use secrets with the network policy none",
      why: "A VM without a network interface sends nothing.",
      fix: "Leave one of them out.",
    });
  }
  for (const [index, { name }] of requests.entries()) {
    const twice = requests.findIndex((other) => other.name === name) !== index;
    if (!twice && !defaults.env.some((entry) => entry.startsWith(`${name}=`))) continue;
    throw badSecret(
      `Cannot use the secret ${name}`,
      `${name} is given ${twice ? "twice" : "in the environment as well"}.`,
      "Give it once; domains are separated by commas.",
    );
  }
  return requests.map((request) => keep(request, policy));
}

/** Make a new VM's authority, and keep its secrets; the record has the rules already. */
export async function keepSecrets(
  dir: string,
  record: VmRecord,
  { requests, caFile }: SecretWishes,
): Promise<void> {
  const { secrets } = record;
  if (secrets === undefined) return;
  const values = Object.fromEntries(requests.map(({ name, value }) => [name, value]));
  const authority = await makeAuthority(networkHelperBinary(), record.id, secrets.rules);
  const material: SecretMaterial = { values, authority };
  if (caFile !== undefined) material.trusted = await readTrusted(caFile);
  await writeFileAtomic(join(dir, FILE), `${JSON.stringify(material)}\n`);
  secrets.certificate = authority.certificate;
  secrets.subject = authoritySubject(record.id);
}

/** Certificates that the caller trusts. @throws ERR_VALIDATION_SECRET */
async function readTrusted(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw badSecret(
      `Cannot read the certificates in ${path}`,
      messageOf(error),
      "Name a readable file of PEM certificates with --ca-file.",
    );
  }
}

/** A VM's secrets, whole; undefined when it has none. @throws ERR_VM_STATE */
export async function readSecrets(
  dir: string,
  record: VmRecord | undefined,
): Promise<VmSecrets | undefined> {
  if (record?.secrets === undefined) return undefined;
  try {
    const material = parseSecretMaterial(JSON.parse(await readFile(join(dir, FILE), "utf8")));
    return { rules: record.secrets.rules, material };
  } catch (error) {
    if (error instanceof VmsanError) throw error;
    // A parser's message may quote what it has read.
    const why = errnoOf(error) === undefined ? "It is no JSON." : messageOf(error);
    throw new VmsanError({
      code: "ERR_VM_STATE",
      message: `Cannot read the secrets of ${record.id}`,
      why: `${join(dir, FILE)}: ${why}`,
      fix: "Remove the VM and make it again with its secrets.",
    });
  }
}

/** Forget a VM's secrets. */
export async function dropSecretFile(dir: string): Promise<void> {
  await rm(join(dir, FILE), { force: true });
}

/** Secrets as users see them. */
export function viewSecrets({ secrets }: VmRecord): SecretView[] {
  return (secrets?.rules ?? []).map(({ name, domains, places }) => ({
    name,
    domains: domains.map(formatSecretDomain),
    places,
  }));
}

/** A VM's variables with those of its secrets, which nothing else may set. */
export function withPlaceholders({ defaults, secrets }: VmRecord): VmRecord["defaults"] {
  if (secrets === undefined) return defaults;
  const own = secrets.rules.map(({ name, placeholder }) => `${name}=${placeholder}`);
  return { ...defaults, env: [...defaults.env, ...own] };
}

/** What the guest is told: whom to trust (nobody, after a snapshot of a VM with secrets), and its variables. */
export function secretConfig({ secrets, image }: VmRecord): Pick<GuestConfig, "trust" | "env"> {
  const files = (image?.config.env ?? [])
    .map((entry) => /^([^=]+)=(\/.*)$/s.exec(entry))
    .filter((match) => BUNDLE_VARIABLES.has(match?.[1] ?? ""))
    .map((match) => match?.[2] ?? "");
  const { certificate = "", subject = "", rules = [] } = secrets ?? {};
  return {
    trust: {
      certificate,
      subject,
      roots: certificate === "" ? "" : rootCertificates.join("\n"),
      files,
    },
    env: rules.map(({ name, placeholder }) => `${name}=${placeholder}`),
  };
}
