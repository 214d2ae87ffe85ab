/** Who this host is in a cluster that it has joined: files of its own, renewed in time. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { joinedSchema } from "../../schema/kubeconfig.ts";
import type { Joined } from "../../schema/kubeconfig.ts";
import { validate } from "../../schema/validate.ts";
import { errnoOf } from "../../model/errors.ts";
import { writeFileAtomic } from "../../util/atomic.ts";
import type { Identity, TlsIdentity } from "../../kube/identity.ts";

/** The file of a node directory in which that is kept. */
export const joinedFile = (directory: string): string => join(directory, "identity.json");

/** Keep it, for its owner alone. */
export async function saveJoined(directory: string, joined: Joined): Promise<void> {
  await writeFileAtomic(joinedFile(directory), `${JSON.stringify(joined)}\n`, 0o600);
}

/** An identity that may be given another certificate. */
export interface RenewableIdentity extends Identity {
  /** The certificate that it shows now, PEM. */
  readonly cert: string;
  replace(joined: Joined): void;
}

/** As what a certificate and its key are shown. */
export function identityOf(joined: Joined): RenewableIdentity {
  const tlsOf = ({ ca, cert, key }: Joined): TlsIdentity => ({ ca, cert, key });
  let tls = tlsOf(joined);
  let { cert } = joined;
  return {
    url: joined.url,
    tls: () => tls,
    headers: async () => await Promise.resolve({}),
    refused: () => false,
    get cert() {
      return cert;
    },
    replace(next: Joined) {
      tls = tlsOf(next);
      ({ cert } = next);
    },
  };
}

/** What a host has joined as; undefined: it has not. @throws ERR_NODE_STORE */
export async function joinedIdentity(directory: string): Promise<RenewableIdentity | undefined> {
  let text: string;
  try {
    text = await readFile(joinedFile(directory), "utf8");
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
  const path = joinedFile(directory);
  const joined = validate(joinedSchema, JSON.parse(text), `file ${path}`, "ERR_NODE_STORE");
  return identityOf(joined);
}
