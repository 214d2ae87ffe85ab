/** What one connection between a guest and a server with secrets goes by. */
import type { Agent as HttpAgent } from "node:http";
import type { SecretDomain } from "../../model/secret.ts";
import type { Room } from "./bodies.ts";
import type { Held } from "./forms.ts";
import type { Replacement } from "./replace.ts";

/** One connection. */
export interface Passage {
  to: SecretDomain;
  /** Where that server is. */
  address: string;
  agent: HttpAgent;
  /** PEM certificates to trust besides the host's. */
  trusted: string | undefined;
  /** Those that this server may be told. */
  secrets: readonly Held[];
  /** What the guest may not see of any of its secrets, and what it sees instead. */
  takeOut: { exact: readonly Replacement[]; sameLength: readonly Replacement[] };
  room: Room;
  /** Requests that are not answered yet. */
  open: Set<{ end: () => void }>;
  /** Note a refusal in the decision log. */
  denied: (rule: string) => void;
}
