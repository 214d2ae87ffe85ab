/** Images of the host's store, and what they take. */
import { useState } from "preact/hooks";
import type { ImageList, ImageView, PruneReport } from "../../model/api/images.ts";
import { call, part, work } from "../api/client.ts";
import { AskText, Button, Confirm, Empty, Failure, Foreign, PageHead } from "../parts/basics.tsx";
import { ACTIONS, Table } from "../parts/table.tsx";
import { useAsk } from "../state/ask.ts";
import { bytes, plain, shortImage } from "../state/format.ts";
import { doWork } from "../state/work.ts";

/** The page. */
export function ImagesPage() {
  const { data, error, refresh } = useAsk<ImageList>("/v1/images", 10_000);
  const [asked, setAsked] = useState<"pull" | "prune" | { remove: string }>();
  const close = (): void => setAsked(undefined);
  const pull = async (image: string): Promise<void> => {
    await doWork(`Pull ${image}`, (onProgress, signal) =>
      work("POST", "/v1/images/pull", { body: { image, pull: "always" }, onProgress, signal }),
    );
    refresh();
  };
  const remove = async (name: string): Promise<void> => {
    await doWork(`Remove ${shortImage(name)}`, async (_, signal) => {
      await call("DELETE", `/v1/images?name=${part(name)}`, { signal });
    });
    refresh();
  };
  const prune = async (): Promise<void> => {
    await doWork("Remove what nothing uses", async (_, signal) => {
      await call<PruneReport>("POST", "/v1/images/prune", { body: { all: true }, signal });
    });
    refresh();
  };
  const images = data?.images ?? [];
  return (
    <>
      <PageHead
        title="Images"
        aside={
          data !== undefined && (
            <span class="muted">
              layers {bytes(data.blobBytes)}, disks {bytes(data.diskBytes)}
            </span>
          )
        }
      >
        {images.length > 0 && (
          <Button icon="trash" label="Remove unused" onClick={() => setAsked("prune")} />
        )}
        <Button kind="primary" icon="download" label="Pull" onClick={() => setAsked("pull")} />
      </PageHead>
      {error !== undefined && <Failure error={error} />}
      {data !== undefined && images.length === 0 && (
        <Empty icon="image" title="No images of registries yet">
          <p class="muted">
            They are pulled when a VM needs them, or ahead of time. The base image, which vmsan
            makes by itself, is not among them.
          </p>
        </Empty>
      )}
      {images.length > 0 && (
        <Table
          label="Images"
          columns={["Name", ["Platform", "wide"], ["Size", "num"], ["Used by", "wide"], ACTIONS]}
        >
          {images.map((image) => (
            <Row key={image.digest} image={image} onRemove={(name) => setAsked({ remove: name })} />
          ))}
        </Table>
      )}
      {asked === "pull" && (
        <AskText
          title="Pull an image"
          label="Image"
          help="For example node:22 or ghcr.io/org/app:1. One that is here is renewed."
          action="Pull"
          onClose={close}
          onText={(image) => void pull(image)}
        />
      )}
      {asked === "prune" && (
        <Confirm
          title="Remove unused images?"
          text="Every image that no VM uses goes, with its layers and disks. They can be pulled again."
          action="Remove"
          onClose={close}
          onConfirm={() => void prune()}
        />
      )}
      {typeof asked === "object" && (
        <Confirm
          title={`Remove ${shortImage(asked.remove)}?`}
          text="Its layers go with the next removal of what is unused."
          action="Remove"
          onClose={close}
          onConfirm={() => void remove(asked.remove)}
        />
      )}
    </>
  );
}

function Row({ image, onRemove }: { image: ImageView; onRemove: (name: string) => void }) {
  const [name] = image.names;
  return (
    <tr>
      <td>
        {image.names.map((one) => (
          <p class="strong" key={one}>
            <Foreign text={shortImage(one)} />
          </p>
        ))}
        <span class="mono small muted">{image.digest.slice(0, 19)}</span>
      </td>
      <td class="wide">{image.platform}</td>
      <td class="num">{bytes(image.sizeBytes)}</td>
      <td class="wide">{plain(image.usedBy.join(", ")) || <span class="muted">nothing</span>}</td>
      <td class="tools">
        {name !== undefined && (
          <Button
            kind="quiet"
            bare
            icon="trash"
            label={`Remove ${shortImage(name)}`}
            onClick={() => onRemove(name)}
          />
        )}
      </td>
    </tr>
  );
}
