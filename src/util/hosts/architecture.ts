/** Names of processors. */

/** What else an architecture is called: by Node, by `uname -m`, by Debian → Go's name and variant. */
const ALIASES: Readonly<Record<string, Architecture>> = {
  x64: ["amd64"],
  x86_64: ["amd64"],
  "x86-64": ["amd64"],
  aarch64: ["arm64"],
  ia32: ["386"],
  x86: ["386"],
  i386: ["386"],
  i486: ["386"],
  i586: ["386"],
  i686: ["386"],
  armel: ["arm", "v6"],
  armv6l: ["arm", "v6"],
  armhf: ["arm", "v7"],
  armv7l: ["arm", "v7"],
  ppc64el: ["ppc64le"],
  mips64el: ["mips64le"],
  loongarch64: ["loong64"],
};

/** Go's name, which images, Docker and Kubernetes use, and the variant that another name implies. */
export type Architecture = readonly [name: string, variant?: string];

/** An architecture by Go's name, whatever a tool calls it. What is not known stays as it is, in lower case. */
export function architectureOf(called: string): Architecture {
  const name = called.toLowerCase();
  return Object.hasOwn(ALIASES, name) ? (ALIASES[name] ?? [name]) : [name];
}

/** Go's name of this host's processors. */
export function hostArchitecture(): string {
  return architectureOf(process.arch === "ppc64" ? "ppc64le" : process.arch)[0];
}
