/** Authorities of VMs, and the certificates that they sign; made by vmsan-nethelper. */
import { createSecureContext, type SecureContext } from "node:tls";
import { VmsanError, messageOf } from "../../model/errors.ts";
import type { Authority, SecretRule } from "../../model/secret.ts";
import { runOk } from "../../util/run.ts";

/** Milliseconds that a certificate may take. */
const limitMs = 20_000;

/** Most certificates of one VM that are kept. */
const maxContexts = 256;

/** What is asked of the helper; see src/network/helper/certify.go. */
interface Order {
  subject: string;
  permitted?: string[];
  authority?: Authority;
  names?: string[];
}

/** Have a certificate made. @throws ERR_SECRET_AUTHORITY */
async function certify(helper: string, order: Order): Promise<Authority> {
  const options = { input: JSON.stringify(order), timeoutMs: limitMs };
  const text = await runOk(helper, ["certify"], "ERR_SECRET_AUTHORITY", options);
  try {
    const { certificate, key } = JSON.parse(text) as Partial<Authority>;
    if (certificate !== undefined && key !== undefined) return { certificate, key };
    throw new Error("It has no certificate.");
  } catch (error) {
    // The text holds a key: neither it nor an error that quotes it is passed on.
    throw new VmsanError({
      code: "ERR_SECRET_AUTHORITY",
      message: `Cannot make a certificate for ${order.subject}`,
      why: error instanceof SyntaxError ? "The helper's answer is no JSON." : messageOf(error),
      fix: "Install this version of vmsan again: its parts do not fit together.",
    });
  }
}

/** Common name of a VM's authority. */
export function authoritySubject(vmId: string): string {
  return `vmsan, secrets of ${vmId}`;
}

/**
 * A new authority of a VM's own, which may speak for the domains of its secrets and no others.
 * @throws ERR_SECRET_AUTHORITY
 */
export async function makeAuthority(
  helper: string,
  vmId: string,
  rules: readonly SecretRule[],
): Promise<Authority> {
  const hosts = rules.flatMap(({ domains }) =>
    domains.map(({ host }) => host.replace(/^\*\./, "")),
  );
  return await certify(helper, {
    subject: authoritySubject(vmId),
    permitted: [...new Set(hosts)],
  });
}

/** A certificate for a server of that name. @throws ERR_SECRET_AUTHORITY */
export async function issue(
  helper: string,
  authority: Authority,
  name: string,
): Promise<Authority> {
  // A subject has 64 characters at most; clients look at the names.
  return await certify(helper, { subject: name.slice(0, 64), authority, names: [name] });
}

/** Certificates of servers that one VM's secrets are for, made when they are first asked for. */
export class Certificates {
  private readonly helper: string;
  private readonly authority: Authority;
  private readonly contexts = new Map<string, Promise<SecureContext>>();
  /** The last that is being made. */
  private last: Promise<unknown> = Promise.resolve();

  constructor(helper: string, authority: Authority) {
    this.helper = helper;
    this.authority = authority;
  }

  /** What a server of that name shows the guest. @throws ERR_SECRET_AUTHORITY */
  async of(name: string): Promise<SecureContext> {
    const known = this.contexts.get(name);
    if (known !== undefined) return await known;
    // One after another: below a wildcard there are as many names as a guest thinks up.
    const made = this.last.then(async () => await this.make(name));
    this.last = made.catch(() => undefined);
    this.contexts.set(name, made);
    const [oldest] = this.contexts.keys();
    if (this.contexts.size > maxContexts && oldest !== undefined) this.contexts.delete(oldest);
    try {
      return await made;
    } catch (error) {
      this.contexts.delete(name);
      throw error;
    }
  }

  private async make(name: string): Promise<SecureContext> {
    const { authority } = this;
    const { certificate, key } = await issue(this.helper, authority, name);
    return createSecureContext({ key, cert: `${certificate}${authority.certificate}` });
  }
}
