/** `--add-host` of builds. */
import { hostsOf } from "../../../client/builds/hosts.ts";
import { DockerError, asDockerError } from "../errors.ts";

/** Names for commands, of clients' words. @throws 400 */
export function addedHosts(words: readonly string[]): Record<string, string[]> {
  try {
    return hostsOf(words.filter((word) => word !== ""));
  } catch (error) {
    throw new DockerError(400, asDockerError(error).message, error);
  }
}
