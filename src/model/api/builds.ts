/** Builds, as the daemon is asked for them, and what they have made. */
import type { RegistryAccess } from "../api.ts";
import type { NetworkPolicy } from "../policy.ts";
import type { Timings } from "../vm.ts";

/** What is built, and how: the plain form of a build's options. */
export interface BuildRequest {
  /** Names of the result, spelt as for `image tag`; none: it gets one of its digest. */
  tags: string[];
  /** What tells builds without names apart: those of one place need not send again what one of them has sent. */
  place?: string;
  /** The Dockerfile's text. */
  dockerfile: string;
  /** Patterns of what of the context is not used; absent: what the context's own file says. */
  ignore?: string;
  /** `KEY=VALUE`. */
  buildArgs: string[];
  labels: string[];
  /** `NAME=IMAGE`: what `FROM NAME` and `--from=NAME` mean; absent: nothing but what they say. */
  contexts?: string[];
  /** `NAME:ADDRESS` lines of /etc/hosts while commands run; absent: none. */
  addHosts?: string[];
  target?: string;
  platform?: string;
  /** Identifier → content in base64. */
  secrets: Record<string, string>;
  noCache: boolean;
  pull: "missing" | "always" | "never";
  /** What commands of the build may reach. */
  policy: NetworkPolicy;
  registry?: RegistryAccess;
}

/** What a build has made. */
export interface BuildReport {
  names: string[];
  /** Of the manifest. */
  digest: string;
  configDigest: string;
  /** Where the daemon's time went. */
  timings: Timings;
}

/** Which builder is to be removed: its cache is one thing, so that all of it goes or nothing. */
export interface BuildPruneRequest {
  /** Only one whose disk nobody has written to for so long, in milliseconds. */
  unusedMs?: number;
  /** Only one that takes more than so many bytes. */
  keepBytes?: number;
}

/** What was freed by the removal of a builder. */
export interface BuildPrune {
  removed: boolean;
  freedBytes: number;
}
