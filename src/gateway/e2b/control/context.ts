/** What the calls of the control plane share. */
import type { Vmsan } from "../../../client/vmsan.ts";
import type { Gate } from "../../access/gate.ts";
import type { GatewayDriver } from "../../native/bodies.ts";
import type { GuestUsers } from "../envd/users.ts";
import type { VolumePlaces } from "../volumes/places.ts";
import type { E2bStore } from "./store.ts";
import type { Uploads } from "./uploads.ts";

/** What the control plane works with. */
export interface ControlContext {
  vmsan: Vmsan;
  gate: Gate;
  store: E2bStore;
  uploads: Uploads;
  /** Where the content of volumes is reached. */
  places: VolumePlaces;
  /** Whom the guests' own files name. */
  users: GuestUsers;
  driver: GatewayDriver;
  /** The domain of sandboxes' hosts, or null for the client's own. */
  domain: string | null;
  /** What is in front says whom it asks for. */
  behindProxy: boolean;
}
