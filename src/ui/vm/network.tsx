/** What the guest has tried to reach, as it falls: allowed or refused, and why. */
import { useEffect, useState } from "preact/hooks";
import type { VmView } from "../../model/api.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import { ask, call, errorInfo, lines, part } from "../api/client.ts";
import { Button, Dialog, Empty, Failure, Foreign } from "../parts/basics.tsx";
import { Icon } from "../parts/icon.tsx";
import { Table } from "../parts/table.tsx";
import { Fields } from "../pages/fields.tsx";
import { policyFields, policyOf, wishesOf } from "../pages/policy-form.ts";
import { clock, moment } from "../state/format.ts";
import { session } from "../state/session.ts";
import { useStore } from "../state/store.ts";
import { refreshVms, vmName } from "../state/vms.ts";
import { ruleWords } from "./rules.ts";
import type { TabProps } from "./tab.ts";

/** A line of the log (docs/network.md). */
interface Decision {
  seq: number;
  time: string;
  verdict: "allowed" | "denied";
  protocol: string;
  name?: string;
  address?: string;
  port?: number;
  rule: string;
}

/** Most lines that are shown. */
const MOST = 500;
const AGAIN_MS = 2_000;
const GATHER_MS = 50;

/** Decisions as they fall, the newest first. */
function useDecisions(vm: string): { list: Decision[]; error?: ErrorInfo } {
  const [list, setList] = useState<Decision[]>([]);
  const [error, setError] = useState<ErrorInfo>();
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    const follow = async (): Promise<void> => {
      const path = `/v1/vms/${part(vm)}/decisions?follow=true`;
      const reply = await ask("GET", path, { signal });
      setError(undefined);
      // Every answer begins with all that is kept.
      let known: Decision[] = [];
      let waiting = false;
      for await (const line of lines(reply)) {
        known.push(JSON.parse(line) as Decision);
        if (waiting) continue;
        waiting = true;
        setTimeout(() => {
          waiting = false;
          known = known.slice(-MOST);
          if (!signal.aborted) setList(known.toReversed());
        }, GATHER_MS);
      }
    };
    void (async () => {
      while (!signal.aborted) {
        await follow().catch((problem: unknown) => {
          if (!signal.aborted) setError(errorInfo(problem));
        });
        await new Promise((done) => setTimeout(done, AGAIN_MS));
      }
    })();
    return () => abort.abort();
  }, [vm]);
  return { list, error };
}

/** A new policy for a VM that is there. */
function ChangePolicy({ vm, onClose }: { vm: VmView; onClose: () => void }) {
  const admin = useStore(session)?.admin === true;
  const [wishes, setWishes] = useState(() => wishesOf(vm.policy));
  const [error, setError] = useState<ErrorInfo>();
  const save = async (): Promise<void> => {
    try {
      const body = policyOf(wishes, vm.policy, admin);
      await call("PUT", `/v1/vms/${part(vm.id)}/policy`, { body });
      await refreshVms();
      onClose();
    } catch (problem) {
      setError(errorInfo(problem));
    }
  };
  return (
    <Dialog title={`What ${vmName(vm)} may reach`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void save();
        }}
      >
        <Fields
          fields={policyFields}
          wishes={wishes}
          admin={admin}
          set={(name, value) => setWishes((old) => ({ ...old, [name]: value }))}
        />
        {error !== undefined && <Failure error={error} />}
        <div class="actions end">
          <Button label="Cancel" onClick={onClose} />
          <Button kind="primary" type="submit" label="Put in force" />
        </div>
      </form>
    </Dialog>
  );
}

/** The tab. */
export function NetworkTab({ vm }: TabProps) {
  const { list, error } = useDecisions(vm.id);
  const [refusedOnly, setRefusedOnly] = useState(false);
  const [changing, setChanging] = useState(false);
  const refused = list.filter(({ verdict }) => verdict === "denied");
  const shown = refusedOnly ? refused : list;
  return (
    <>
      <div class="bar-above">
        <span>
          <span class="num strong">{refused.length}</span> refused,{" "}
          <span class="num strong">{list.length - refused.length}</span> allowed
        </span>
        <label class="check">
          <input
            type="checkbox"
            checked={refusedOnly}
            onChange={(event) => setRefusedOnly(event.currentTarget.checked)}
          />
          Refused only
        </label>
        <span class="grow" />
        {vm.policy.mode !== "none" && (
          <Button
            icon="network"
            label="Change what it may reach"
            onClick={() => setChanging(true)}
          />
        )}
      </div>
      {error !== undefined && <Failure error={error} />}
      {shown.length === 0 && error === undefined && (
        <Empty icon="network" title={refusedOnly ? "Nothing was refused" : "No connections yet"}>
          <p class="muted">What the guest tries to reach appears here as it happens.</p>
        </Empty>
      )}
      {shown.length > 0 && (
        <Table
          label="Decisions"
          columns={["Time", "Verdict", "Destination", ["Protocol", "wide"], "Because"]}
        >
          {shown.map((one) => (
            <tr key={one.seq}>
              <td class="when" title={moment(one.time)}>
                {clock(one.time)}
              </td>
              <td>
                <span class={`verdict ${one.verdict}`}>
                  <Icon name={one.verdict === "denied" ? "close" : "check"} />
                  {one.verdict === "denied" ? "refused" : "allowed"}
                </span>
              </td>
              <td>
                <Foreign
                  mono
                  text={
                    (one.name ?? one.address ?? "") + (one.port === undefined ? "" : `:${one.port}`)
                  }
                />
                {one.name !== undefined && one.address !== undefined && (
                  <span class="mono small muted block">{one.address}</span>
                )}
              </td>
              <td class="wide">{one.protocol === "dns" ? "name asked for" : one.protocol}</td>
              <td title={one.rule}>{ruleWords(one.rule)}</td>
            </tr>
          ))}
        </Table>
      )}
      {changing && <ChangePolicy vm={vm} onClose={() => setChanging(false)} />}
    </>
  );
}
