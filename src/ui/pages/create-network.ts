/** The fields of a new VM's network; those of its policy can be changed later, too. */
import { linesOf, numbers, port } from "./create-lines.ts";
import { inPolicy } from "./field.ts";
import type { Group, Wishes } from "./field.ts";

/** Whether it is to have a network card. */
export const hasCard = (wishes: Wishes): boolean => wishes["policy"] !== "none";

/** Whether it may reach anything. */
const reaches = (wishes: Wishes): boolean => hasCard(wishes) && wishes["policy"] !== "deny-all";

/** Whether it may reach only what is listed. */
const listed = (wishes: Wishes): boolean => wishes["policy"] === "custom";

/** The network's part of the form. */
export const NETWORK: Group = {
  title: "Network",
  folded: false,
  fields: [
    {
      name: "policy",
      label: "May reach",
      help: "What the guest can connect to. It can be changed while it runs; refused connections are shown.",
      kind: "choice",
      first: "allow-all",
      choices: [
        { value: "allow-all", label: "The internet, not the host's own networks" },
        { value: "custom", label: "Only what is listed" },
        { value: "deny-all", label: "Nothing" },
        { value: "none", label: "No network card" },
      ],
      policy: true,
      put: inPolicy("mode", String),
    },
    {
      name: "domains",
      label: "Names",
      help: "One a line: example.com, or *.example.com for every name below it. Their addresses are learnt from DNS.",
      kind: "lines",
      hint: "api.example.com\n*.debian.org",
      shown: listed,
      policy: true,
      put: inPolicy("allowedDomains", linesOf),
    },
    {
      name: "cidrs",
      label: "Networks",
      help: "Addresses that may be reached, one a line: 192.0.2.0/24, 2001:db8::/32.",
      kind: "lines",
      shown: listed,
      policy: true,
      put: inPolicy("allowedCidrs", linesOf),
    },
    {
      name: "denied",
      label: "Refused networks",
      help: "Wins over everything that is allowed.",
      kind: "lines",
      shown: reaches,
      policy: true,
      put: inPolicy("deniedCidrs", linesOf),
    },
    {
      name: "allowedPorts",
      label: "Ports",
      help: "Only these ports of what is listed, with commas between. Empty: every port.",
      kind: "text",
      hint: "443, 80",
      shown: listed,
      policy: true,
      put: inPolicy("allowedPorts", numbers),
    },
    {
      name: "udp",
      label: "UDP",
      help: "Other UDP than DNS to what is listed.",
      kind: "yes",
      shown: listed,
      policy: true,
      put: inPolicy("allowUdp", () => true),
    },
    {
      name: "icmp",
      label: "Ping",
      help: "ICMP to what may be reached.",
      kind: "yes",
      shown: reaches,
      policy: true,
      put: inPolicy("allowIcmp", () => true),
    },
    {
      name: "bandwidth",
      label: "Bandwidth",
      help: "At most that much, in each direction. Empty: no limit.",
      kind: "number",
      unit: "Mbit/s",
      min: 1,
      max: 1000,
      shown: hasCard,
      policy: true,
      put: inPolicy("bandwidthMbit", Number),
    },
    {
      name: "networks",
      label: "Private networks",
      help: "Networks of VMs among themselves, one a line. Whoever is in one is reached there by name.",
      kind: "lines",
      shown: hasCard,
      put: (value, request) => {
        request["networks"] = linesOf(value).map((network) => ({ network, aliases: [] }));
      },
    },
    {
      name: "ports",
      label: "Published ports",
      help: "Ports of the host that lead to the guest, one a line: 8080, or 8080:80. On 127.0.0.1 unless an address stands in front.",
      kind: "lines",
      hint: "8080:80",
      admin: true,
      shown: hasCard,
      put: (value, request) => void (request["ports"] = linesOf(value).map(port)),
    },
    {
      name: "hostPorts",
      label: "Ports of the host",
      help: "Services of the host itself that the guest may reach at its gateway address, with commas between.",
      kind: "text",
      admin: true,
      shown: hasCard,
      policy: true,
      put: inPolicy("allowHostPorts", numbers),
    },
  ],
};
