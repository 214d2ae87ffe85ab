/** Ports of sandboxes, where E2B's clients are promised more than other VMs' are. */
import type { VmView } from "../../model/api.ts";
import type { PortRules } from "../ports/face.ts";
import type { Waker } from "./control/lifecycle.ts";
import { ENVD_PORT } from "./envd/data-plane.ts";
import { DeadSandbox } from "./envd/dead-sandbox.ts";
import { SANDBOX_LABELS, isSandbox } from "./sandbox.ts";

/** The Host header that a guest is to see, if its sandbox was made with one. */
function maskedHost({ labels }: VmView, port: number): string | undefined {
  const network = labels[SANDBOX_LABELS.network];
  if (network === undefined) return undefined;
  const { maskRequestHost } = JSON.parse(network) as { maskRequestHost?: string | null };
  // eslint-disable-next-line no-template-curly-in-string -- the client's own placeholder
  return maskRequestHost?.replaceAll("${PORT}", String(port));
}

/** How ports behave that are sandboxes'. */
export function sandboxPorts(waker: Waker): PortRules {
  return {
    ready: async (vm) => await waker.ready(vm),
    host: maskedHost,
    own: (port) => port === ENVD_PORT,
    refused: (response, { vm, reason, view }) => {
      if (view !== undefined && !isSandbox(view)) return false;
      // Whoever asks a sandbox that is gone takes this for its end, key or not.
      if (reason !== "private") new DeadSandbox(vm).send(response);
      else if (view === undefined) return false;
      else {
        response.writeHead(403, { "content-type": "application/json" });
        const message = "The sandbox's ports need its traffic access token";
        response.end(JSON.stringify({ sandboxId: vm, message, code: 403 }));
      }
      return true;
    },
  };
}
