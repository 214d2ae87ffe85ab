/**
 * ports/: HTTP to any port of a VM, over its agent. Takes requests whose host or headers name a VM and a
 * port, gives the answers of what listens there; private unless the VM says otherwise.
 *
 * access.ts: which port a request means, and whether it may go there.
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { VmView } from "../../model/api.ts";
import { VmsanError } from "../../model/errors.ts";
import { isVmId } from "../../util/names.ts";
import { presentedKey, sees } from "../access/gate.ts";
import type { Gate } from "../access/gate.ts";
import type { GuestPort, Hosts } from "../http/hosts.ts";

/** Label of a VM whose ports anybody may reach: value `true`. */
export const PUBLIC_LABEL = "vmsan.public-ports";

/** Headers that are for the gateway and never reach a guest. */
export const GATEWAY_HEADERS: readonly string[] = [
  "x-api-key",
  "vmsan-vm",
  "vmsan-port",
  "vmsan-traffic-token",
  "e2b-sandbox-id",
  "e2b-sandbox-port",
  "e2b-traffic-access-token",
];

/** The host of a sandbox, for clients of E2B's that want one. */
export const CLIENT_ID = "vmsan";

/** The ID of a VM that a client names: E2B's SDKs before 1.9 put that of its host behind it. */
export function namedVm(text: string): string {
  const id = text.endsWith(`-${CLIENT_ID}`) ? text.slice(0, -CLIENT_ID.length - 1) : text;
  return isVmId(id) ? id : text;
}

function header(headers: IncomingHttpHeaders, name: string): string | undefined {
  const value = headers[name];
  return typeof value === "string" ? value : undefined;
}

/** The port that a request is for: by its host, or by the headers `vmsan-vm` and `vmsan-port`. */
export function guestPortOf(
  request: Pick<IncomingMessage, "headers">,
  hosts: Hosts,
): GuestPort | undefined {
  const named = hosts.guestPort(request);
  if (named !== undefined) return { ...named, vm: namedVm(named.vm) };
  const { headers } = request;
  const vm = header(headers, "vmsan-vm") ?? header(headers, "e2b-sandbox-id");
  const port = Number(header(headers, "vmsan-port") ?? header(headers, "e2b-sandbox-port"));
  if (vm === undefined || !Number.isInteger(port) || port < 1 || port > 65_535) return undefined;
  return { vm: namedVm(vm), port };
}

/** Why a request does not reach a port: there is no such VM, it sleeps, or its ports are not for this caller. */
export type PortReason = "missing" | "asleep" | "private";

/** A request that does not reach a port. */
export class PortRefusal extends VmsanError {
  readonly reason: PortReason;
  readonly vm: string;
  /** The VM, where there is one. */
  readonly view: VmView | undefined;

  constructor(reason: PortReason, vm: string, view?: VmView) {
    const name = vm.slice(0, 63);
    super(
      reason === "private"
        ? {
            code: "ERR_GATEWAY_UNAUTHORIZED",
            message: `Ports of ${name} are private`,
            why: "The request presents neither the VM's traffic token nor a key of its project.",
            fix: "Send the header `vmsan-traffic-token`, or `X-API-Key` with a key of the project.",
          }
        : reason === "asleep"
          ? {
              code: "ERR_GATEWAY_UPSTREAM",
              message: `${name} is paused`,
              why: "It was not made to wake when its ports are used.",
              fix: "Let it go on first, or make it with autoResume.",
            }
          : {
              code: "ERR_GATEWAY_UPSTREAM",
              message: `There is no VM ${name}`,
              why: "It was never made, or is gone.",
              fix: "Take the ID from `vmsan ls`.",
            },
    );
    this.reason = reason;
    this.vm = name;
    this.view = view;
  }
}

/**
 * Let a request through to a VM's port.
 * @param get asks the daemon for the VM
 * @returns the VM
 * @throws PortRefusal
 */
export async function admitToPort(
  request: IncomingMessage,
  target: GuestPort,
  gate: Gate,
  get: (id: string) => Promise<VmView>,
): Promise<VmView> {
  // By ID alone: a name can pass to another VM, and with it the trust in an address.
  if (!isVmId(target.vm)) throw new PortRefusal("missing", target.vm);
  const { headers } = request;
  const token =
    header(headers, "vmsan-traffic-token") ?? header(headers, "e2b-traffic-access-token");
  const bearer =
    token === undefined ? undefined : await gate.tokens.bearer(token, "traffic", target.vm);
  let view: VmView;
  try {
    view = await get(target.vm);
  } catch (error) {
    if (!(error instanceof VmsanError) || error.code !== "ERR_VM_NOT_FOUND") throw error;
    throw new PortRefusal("missing", target.vm);
  }
  if (bearer !== undefined && sees(gate.pass(request, bearer), view)) return view;
  if (view.labels[PUBLIC_LABEL] === "true") return view;
  const key = header(headers, "x-api-key");
  if (key === undefined || presentedKey(request) === undefined)
    throw new PortRefusal("private", target.vm, view);
  const caller = await gate.admit(request, key);
  if (!sees(caller, view)) throw new PortRefusal("private", target.vm, view);
  return view;
}
