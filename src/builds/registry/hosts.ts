/**
 * Which registries a Dockerfile may name, and how buildah is told that each of them is this host.
 *
 * buildah can be given other servers for registries by name only, so their names must be known before
 * it reads the Dockerfile. It is not parsed here: everything in it, and in the build's arguments, that
 * looks like a host is taken for one. One too many does no harm.
 */
import { RESULT } from "./registry.ts";

/** Registries that names mean which name none. */
const DOCKER_HUB = "docker.io";
/** Hosts that are taken from a text, at most. */
const MOST = 500;

/** Hosts that a text names, `docker.io` first. */
export function hostsIn(texts: readonly string[]): string[] {
  const hosts = new Set([DOCKER_HUB]);
  for (const text of texts) {
    // With a dot, a port, or the one name that needs neither.
    const host =
      /(?<![\w.-])((?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*(?::\d{1,5})?)(?=\/|["'\s]|$)/gm;
    for (const [, found = ""] of text.matchAll(host)) {
      const name = found.toLowerCase();
      if (!/[.:]/.test(name) && name !== "localhost") continue;
      if (hosts.size < MOST && name.length <= 255) hosts.add(name);
    }
  }
  return [...hosts];
}

/**
 * registries.conf (containers-registries.conf(5), version 2) that leads to this host's registry.
 * @param address where it is in the guest
 * @param id the build's
 */
export function registriesConf(hosts: readonly string[], address: string, id: string): string {
  const lines = [
    `unqualified-search-registries = ["${DOCKER_HUB}"]`,
    'short-name-mode = "disabled"',
  ];
  for (const [index, host] of hosts.entries()) {
    lines.push(
      "",
      "[[registry]]",
      `prefix = "${host}"`,
      `location = "${address}/${id}/h${index}"`,
      "insecure = true",
    );
  }
  return `${lines.join("\n")}\n`;
}

/** Where the result of a build is pushed to. */
export function resultName(address: string, id: string): string {
  return `docker://${address}/${id}/${RESULT}/image:latest`;
}
