/** Private networks: VMs that reach each other by name and address, and nobody else. */
import { useState } from "preact/hooks";
import type { PrivateNetworkView } from "../../model/private-network.ts";
import { part } from "../api/client.ts";
import {
  AskText,
  Button,
  Confirm,
  Empty,
  Failure,
  Foreign,
  PageHead,
  Section,
} from "../parts/basics.tsx";
import { useAsk } from "../state/ask.ts";
import { plain } from "../state/format.ts";
import { to } from "../state/route.ts";
import { doCall } from "../state/work.ts";

/** The page. */
export function NetworksPage() {
  const { data, error, refresh } = useAsk<{ networks: PrivateNetworkView[] }>(
    "/v1/networks",
    5_000,
  );
  const [asked, setAsked] = useState<"new" | PrivateNetworkView>();
  const close = (): void => setAsked(undefined);
  const change = async (...wanted: Parameters<typeof doCall>): Promise<void> => {
    await doCall(...wanted);
    refresh();
  };
  const networks = data?.networks ?? [];
  return (
    <>
      <PageHead title="Networks">
        <Button kind="primary" icon="plus" label="New network" onClick={() => setAsked("new")} />
      </PageHead>
      {error !== undefined && <Failure error={error} />}
      {data !== undefined && networks.length === 0 && (
        <Empty icon="network" title="No private networks yet">
          <p class="muted">
            VMs in a private network reach each other by name, whatever else they may reach.
          </p>
        </Empty>
      )}
      {networks.map((network) => (
        <Section
          key={network.name}
          title={network.name}
          aside={
            <>
              <span class="mono small muted">{network.subnet}</span>
              <Button
                kind="quiet"
                bare
                icon="trash"
                label={`Remove ${network.name}`}
                onClick={() => setAsked(network)}
              />
            </>
          }
        >
          {network.damaged !== undefined && <p>{plain(network.damaged)}</p>}
          {network.members.length === 0 && <p class="muted">Nobody is in it.</p>}
          <ul class="plain">
            {network.members.map((member) => (
              <li key={member.id}>
                <a href={to("vms", member.id)}>
                  <Foreign text={member.name ?? member.id} />
                </a>{" "}
                <span class="mono small">{member.address}</span>{" "}
                <span class="small muted">
                  {plain(member.aliases.join(", "))}
                  {member.connected ? "" : " not connected"}
                </span>
              </li>
            ))}
          </ul>
        </Section>
      ))}
      {asked === "new" && (
        <AskText
          title="New network"
          label="Name"
          help="New VMs name it in their form; those that are there join by vmsan network connect."
          action="Make it"
          onClose={close}
          onText={(name) => void change(`Make ${name}`, "POST", "/v1/networks", { name })}
        />
      )}
      {typeof asked === "object" && (
        <Confirm
          title={`Remove ${asked.name}?`}
          text="It must have no members."
          action="Remove"
          onClose={close}
          onConfirm={() =>
            void change(`Remove ${asked.name}`, "DELETE", `/v1/networks/${part(asked.name)}`)
          }
        />
      )}
    </>
  );
}
