/** A new VM: a form in which every option is explained. */
import { useState } from "preact/hooks";
import type { VmView } from "../../model/api.ts";
import type { ErrorInfo } from "../../model/errors.ts";
import { errorInfo, work } from "../api/client.ts";
import { Button, ButtonLink, Failure, PageHead } from "../parts/basics.tsx";
import { useAsk } from "../state/ask.ts";
import { shortImage } from "../state/format.ts";
import { go, to } from "../state/route.ts";
import { session } from "../state/session.ts";
import { useStore } from "../state/store.ts";
import { refreshVms } from "../state/vms.ts";
import { doWork } from "../state/work.ts";
import { GROUPS, firstWishes, requestOf } from "./create-fields.ts";
import type { Wishes } from "./field.ts";
import { Fields } from "./fields.tsx";

/** Names of the images that the host has, for the form's suggestions. */
function Suggestions({ admin }: { admin: boolean }) {
  const { data } = useAsk<{ images: { names: string[] }[] }>(admin ? "/v1/images" : undefined);
  const names = (data?.images ?? []).flatMap((image) => image.names);
  return (
    <datalist id="images">
      {names.map((name) => (
        <option key={name} value={shortImage(name)} />
      ))}
    </datalist>
  );
}

/** What was asked for and has not been made: a form that failed need not be filled in again by who has filled it in. */
let draft: { wishes: Wishes; by: unknown } | undefined;

/** The page. */
export function Create() {
  const who = useStore(session);
  const admin = who?.admin === true;
  const kept = draft?.by === who ? draft : undefined;
  const [wishes, setWishes] = useState(() => kept?.wishes ?? firstWishes());
  const [error, setError] = useState<ErrorInfo>();
  const set = (name: string, value: string): void =>
    setWishes((old) => ({ ...old, [name]: value }));
  const create = async (): Promise<void> => {
    let body: object;
    try {
      body = requestOf(wishes, admin);
    } catch (problem) {
      setError(errorInfo(problem));
      return;
    }
    const title = `New VM ${wishes["name"] ?? ""}`.trim();
    draft = { wishes, by: who };
    go(["vms"]);
    const made = await doWork(
      title,
      (onProgress, signal) => work<VmView>("POST", "/v1/vms", { body, onProgress, signal }),
      to("create"),
    );
    if (made === undefined) return;
    if (draft?.wishes === wishes) draft = undefined;
    await refreshVms();
    // Who has gone elsewhere meanwhile stays there.
    if (location.hash === to("vms")) go(["vms", made.id]);
  };
  return (
    <>
      <PageHead title="New VM" />
      <Suggestions admin={admin} />
      <form
        class="create"
        onSubmit={(event) => {
          event.preventDefault();
          void create();
        }}
      >
        {GROUPS.map((group) =>
          group.folded ? (
            <details class="section" key={group.title}>
              <summary>
                <h2>{group.title}</h2>
              </summary>
              <Fields fields={group.fields} wishes={wishes} admin={admin} set={set} />
            </details>
          ) : (
            <fieldset class="section" key={group.title}>
              <legend>
                <h2>{group.title}</h2>
              </legend>
              <Fields fields={group.fields} wishes={wishes} admin={admin} set={set} />
            </fieldset>
          ),
        )}
        {error !== undefined && <Failure error={error} />}
        <div class="actions">
          <Button kind="primary" type="submit" label="Make it" />
          <ButtonLink kind="quiet" label="Cancel" href={to("vms")} />
          {kept !== undefined && (
            <Button
              kind="quiet"
              label="Begin anew"
              onClick={() => {
                draft = undefined;
                setWishes(firstWishes());
              }}
            />
          )}
        </div>
      </form>
    </>
  );
}
