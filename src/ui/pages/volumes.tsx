/** Volumes: disks with a name, which outlive VMs. */
import { useState } from "preact/hooks";
import type { VolumeView } from "../../model/volume.ts";
import { part } from "../api/client.ts";
import {
  AskText,
  Button,
  Confirm,
  Dialog,
  Empty,
  Failure,
  Foreign,
  PageHead,
} from "../parts/basics.tsx";
import { Bar } from "../parts/size.tsx";
import { ACTIONS, Table } from "../parts/table.tsx";
import { useAsk, useNow } from "../state/ask.ts";
import { ago, bytes, plain } from "../state/format.ts";
import { doCall } from "../state/work.ts";

const GIB = 2 ** 30;

/** Name and size of a new one. */
function NewVolume(props: {
  onMake: (name: string, sizeBytes: number) => void;
  onClose: () => void;
}) {
  const [name, setName] = useState("");
  const [size, setSize] = useState("10");
  return (
    <Dialog title="New volume" onClose={props.onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          props.onClose();
          props.onMake(name.trim(), Math.round(Number(size) * 4) * (GIB / 4));
        }}
      >
        <label class="field">
          <span class="label">Name</span>
          <input
            value={name}
            required
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => setName(event.currentTarget.value)}
          />
          <span class="help">By which VMs mount it: NAME:/path.</span>
        </label>
        <label class="field">
          <span class="label">Size in GiB</span>
          <input
            type="number"
            min="1"
            max="1024"
            step="0.25"
            required
            value={size}
            onInput={(event) => setSize(event.currentTarget.value)}
          />
          <span class="help">
            How large it may grow; at first it takes no room, and it can be grown later.
          </span>
        </label>
        <div class="actions end">
          <Button label="Cancel" onClick={props.onClose} />
          <Button kind="primary" type="submit" label="Make it" />
        </div>
      </form>
    </Dialog>
  );
}

type Asked = "new" | { what: "remove" | "grow"; volume: VolumeView };

/** The page. */
export function VolumesPage() {
  const { data, error, refresh } = useAsk<{ volumes: VolumeView[] }>("/v1/volumes", 5_000);
  const [asked, setAsked] = useState<Asked>();
  const now = useNow(10_000);
  const close = (): void => setAsked(undefined);
  const change = async (...wanted: Parameters<typeof doCall>): Promise<void> => {
    await doCall(...wanted);
    refresh();
  };
  const volumes = data?.volumes ?? [];
  return (
    <>
      <PageHead title="Volumes">
        <Button kind="primary" icon="plus" label="New volume" onClick={() => setAsked("new")} />
      </PageHead>
      {error !== undefined && <Failure error={error} />}
      {data !== undefined && volumes.length === 0 && (
        <Empty icon="volume" title="No volumes yet">
          <p class="muted">A volume is a disk with a name that outlives the VMs that mount it.</p>
        </Empty>
      )}
      {volumes.length > 0 && (
        <Table label="Volumes" columns={["Name", "Size", "Used by", ["Made", "num wide"], ACTIONS]}>
          {volumes.map((volume) => (
            <tr key={volume.name}>
              <td class="strong">
                <Foreign text={volume.name} />
                {volume.damaged !== undefined && (
                  <span class="small block">{plain(volume.damaged)}</span>
                )}
              </td>
              <td class="load">
                <Bar
                  share={volume.storedBytes / volume.sizeBytes}
                  label={`${bytes(volume.storedBytes)} of ${bytes(volume.sizeBytes)}`}
                />
              </td>
              <td>{plain(volume.usedBy.join(", ")) || <span class="muted">nobody</span>}</td>
              <td class="num wide">{ago(volume.createdAt, now)}</td>
              <td class="tools">
                <Button
                  kind="quiet"
                  bare
                  icon="up"
                  label={`Grow ${volume.name}`}
                  onClick={() => setAsked({ what: "grow", volume })}
                />
                <Button
                  kind="quiet"
                  bare
                  icon="trash"
                  label={`Remove ${volume.name}`}
                  onClick={() => setAsked({ what: "remove", volume })}
                />
              </td>
            </tr>
          ))}
        </Table>
      )}
      {asked === "new" && (
        <NewVolume
          onClose={close}
          onMake={(name, sizeBytes) =>
            void change(`Make ${name}`, "POST", "/v1/volumes", { name, sizeBytes })
          }
        />
      )}
      {typeof asked === "object" && asked.what === "remove" && (
        <Confirm
          title={`Remove ${asked.volume.name}?`}
          text="What is on it is lost."
          action="Remove"
          onClose={close}
          onConfirm={() =>
            void change(
              `Remove ${asked.volume.name}`,
              "DELETE",
              `/v1/volumes/${part(asked.volume.name)}`,
            )
          }
        />
      )}
      {typeof asked === "object" && asked.what === "grow" && (
        <AskText
          title={`Grow ${asked.volume.name}`}
          label="New size in GiB"
          first={String(asked.volume.sizeBytes / GIB)}
          help="It can become larger, not smaller."
          action="Grow"
          onClose={close}
          onText={(text) =>
            void change(
              `Grow ${asked.volume.name}`,
              "POST",
              `/v1/volumes/${part(asked.volume.name)}/grow`,
              {
                sizeBytes: Math.round(Number(text) * 4) * (GIB / 4),
              },
            )
          }
        />
      )}
    </>
  );
}
