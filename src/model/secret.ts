/** Secrets that guests use without seeing them; see docs/secrets.md for what each word means. */

/** Part of a request in which a placeholder becomes the value. */
export type SecretPlace = "header" | "query" | "body";

/** Where a secret may be sent. */
export interface SecretDomain {
  scheme: "https" | "http";
  /** Lower case; `*.` first means every name below. */
  host: string;
  port: number;
}

/** A secret, but for its value. */
export interface SecretRule {
  /** Name of the guest's environment variable that holds the placeholder. */
  name: string;
  domains: SecretDomain[];
  places: SecretPlace[];
}

/** A secret as the daemon is given it. */
export interface SecretRequest {
  name: string;
  /** Never logged, recorded or shown. */
  value: string;
  /** `[https://|http://]host[:port]`; none: those that the network policy allows. */
  domains: string[];
  /** Absent: all of them. */
  places?: SecretPlace[];
}

/** A secret as users see it. */
export interface SecretView {
  name: string;
  domains: string[];
  places: SecretPlace[];
}

/** A secret as a VM's record has it. */
export interface KeptSecret extends SecretRule {
  /** What the guest sees instead; another one for each VM. */
  placeholder: string;
}

/** An authority that signs certificates, PEM. */
export interface Authority {
  certificate: string;
  key: string;
}

/** What a VM's secrets need and no record holds: kept in a file of the VM's own, mode 0600. */
export interface SecretMaterial {
  /** By name. */
  values: Record<string, string>;
  /** Signs what the guest is shown in place of the domains' own certificates. */
  authority: Authority;
  /** PEM certificates to trust besides the host's when domains are asked. */
  trusted?: string;
}

/** What a VM's record has of its secrets. */
export interface SecretRecord {
  rules: KeptSecret[];
  /** The authority's certificate, PEM. */
  certificate: string;
  /** Its common name. */
  subject: string;
}

/** A VM's secrets, whole. */
export interface VmSecrets {
  rules: readonly KeptSecret[];
  material: SecretMaterial;
}
