/** Files of the guest: look, take, bring, rename, remove. */
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import { errorInfo } from "../api/client.ts";
import { AskText, Button, Confirm, Failure, Foreign } from "../parts/basics.tsx";
import { Icon } from "../parts/icon.tsx";
import { ACTIONS, Table } from "../parts/table.tsx";
import { bytes, moment, plain } from "../state/format.ts";
import { go, to } from "../state/route.ts";
import { doWork } from "../state/work.ts";
import { GuestFiles, below, modeText, parentOf } from "./files-api.ts";
import type { FileEntry } from "./files-api.ts";
import { Halted } from "./halted.tsx";
import type { TabProps } from "./tab.ts";

const ICONS = { dir: "folder", symlink: "link" } as const;

/** Give a file to the browser under its name. */
function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The browser has taken it once the click has been handled.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** The way down to a directory, each step a link. */
function Way({ vm, path }: { vm: string; path: string }) {
  const steps = path.split("/").filter((step) => step !== "");
  return (
    <nav class="way mono" aria-label="Directory">
      <a href={to("vms", vm, "files", "/")} aria-label="Root directory">
        /
      </a>
      {steps.map((step, at) => (
        <span key={at}>
          <a
            href={to("vms", vm, "files", `/${steps.slice(0, at + 1).join("/")}`)}
            aria-current={at === steps.length - 1 ? "page" : undefined}
          >
            {plain(step)}
          </a>
          {at < steps.length - 1 && "/"}
        </span>
      ))}
    </nav>
  );
}

type Asked = { what: "remove" | "rename"; entry: FileEntry } | { what: "directory" };

/** The tab. */
export function FilesTab({ vm, rest }: TabProps) {
  const own = vm.defaults.user ?? vm.image?.config.user ?? "";
  const home = vm.defaults.workdir ?? vm.image?.config.workingDir ?? "";
  const path = rest[0] ?? (home === "" ? "/" : home);
  const [user, setUser] = useState(own);
  const [entries, setEntries] = useState<FileEntry[]>();
  const [error, setError] = useState<ErrorInfo>();
  const [asked, setAsked] = useState<Asked>();
  const [round, setRound] = useState(0);
  const [over, setOver] = useState(false);
  const input = useRef<HTMLInputElement>(null);
  const files = useMemo(() => new GuestFiles(vm.id, user), [vm.id, user]);
  const runs = vm.status === "running";
  const again = (): void => setRound((count) => count + 1);
  useEffect(() => {
    if (!runs) return undefined;
    const abort = new AbortController();
    files.list(path, abort.signal).then(
      (list) => {
        setEntries(list);
        setError(undefined);
      },
      (problem: unknown) => {
        if (abort.signal.aborted) return;
        setEntries(undefined);
        setError(errorInfo(problem));
      },
    );
    return () => abort.abort();
  }, [files, path, round, runs]);
  if (!runs) return <Halted vm={vm} icon="folder" />;
  /** Something short; what goes wrong is shown. */
  const change = async (body: Promise<unknown>): Promise<void> => {
    try {
      await body;
      setError(undefined);
    } catch (problem) {
      setError(errorInfo(problem));
    }
    again();
  };
  const bring = async (list: FileList | null): Promise<void> => {
    for (const file of list ?? []) {
      await doWork(`Upload ${file.name}`, async (report, signal) => {
        const progress = (done: number): void =>
          report({ phase: "upload", item: bytes(done), done, total: file.size });
        await files.write(below(path, file.name), file, progress, signal);
      });
    }
    again();
  };
  const take = async (entry: FileEntry): Promise<void> => {
    await doWork(`Download ${entry.name}`, async (report, signal) => {
      const progress = (done: number): void =>
        report({ phase: "download", item: bytes(done), done, total: entry.size });
      save(await files.read(below(path, entry.name), progress, signal), entry.name);
    });
  };
  const follow = async (entry: FileEntry): Promise<void> => {
    const at = below(path, entry.name);
    try {
      const found = await files.stat(at);
      if (found.type === "dir") go(["vms", vm.id, "files", at]);
      else await take({ ...found, name: entry.name });
    } catch (problem) {
      setError(errorInfo(problem));
    }
  };
  return (
    <div
      class={`files ${over ? "over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        void bring(event.dataTransfer?.files ?? null);
      }}
    >
      <div class="bar-above">
        <Way vm={vm.id} path={path} />
        <span class="grow" />
        <label class="row small">
          As
          <select value={user} onChange={(event) => setUser(event.currentTarget.value)}>
            {own !== "" && own !== "root" && <option value={own}>{own}</option>}
            <option value={own === "root" ? "root" : ""}>root</option>
          </select>
        </label>
        <Button
          icon="folder"
          label="New directory"
          onClick={() => setAsked({ what: "directory" })}
        />
        <Button
          icon="upload"
          kind="primary"
          label="Upload"
          onClick={() => input.current?.click()}
        />
        <input
          ref={input}
          type="file"
          multiple
          class="hidden"
          tabIndex={-1}
          aria-label="Files to upload"
          onChange={(event) => {
            void bring(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
      </div>
      {error !== undefined && <Failure error={error} />}
      {entries !== undefined && (
        <Table
          label={`Files in ${path}`}
          columns={["Name", ["Size", "num"], ["Changed", "wide"], ["Mode", "wide"], ACTIONS]}
          below={
            entries.length === 0 && (
              <p class="muted padded">Nothing is in it. Drop files here to upload them.</p>
            )
          }
        >
          {path !== "/" && (
            <tr>
              <td class="name" colSpan={5}>
                <a class="entry" href={to("vms", vm.id, "files", parentOf(path))}>
                  <Icon name="up" /> ..
                </a>
              </td>
            </tr>
          )}
          {entries.map((entry) => (
            <Row
              key={entry.name}
              entry={entry}
              href={
                entry.type === "dir" && entry.exact
                  ? to("vms", vm.id, "files", below(path, entry.name))
                  : undefined
              }
              onOpen={() => void (entry.type === "symlink" ? follow(entry) : take(entry))}
              onRename={() => setAsked({ what: "rename", entry })}
              onRemove={() => setAsked({ what: "remove", entry })}
            />
          ))}
        </Table>
      )}
      {asked?.what === "remove" && (
        <Confirm
          title={`Remove ${plain(asked.entry.name)}?`}
          text={
            asked.entry.type === "dir"
              ? "The directory goes with all that is in it."
              : "It cannot be brought back."
          }
          action="Remove"
          onClose={() => setAsked(undefined)}
          onConfirm={() => void change(files.remove(below(path, asked.entry.name)))}
        />
      )}
      {asked?.what === "rename" && (
        <AskText
          title="Rename"
          label="New name"
          first={asked.entry.name}
          action="Rename"
          onClose={() => setAsked(undefined)}
          onText={(name) =>
            void change(files.move(below(path, asked.entry.name), below(path, name)))
          }
        />
      )}
      {asked?.what === "directory" && (
        <AskText
          title="New directory"
          label="Name"
          action="Make it"
          onClose={() => setAsked(undefined)}
          onText={(name) => void change(files.mkdir(below(path, name)))}
        />
      )}
    </div>
  );
}

function Row(props: {
  entry: FileEntry;
  /** Of a directory. */
  href: string | undefined;
  onOpen: () => void;
  onRename: () => void;
  onRemove: () => void;
}) {
  const { entry, href } = props;
  const { type, name, exact } = entry;
  const opens = exact && (type === "file" || type === "symlink");
  const shown = (
    <>
      <Icon name={type === "dir" || type === "symlink" ? ICONS[type] : "file"} />
      <Foreign text={name} />
    </>
  );
  return (
    <tr>
      <td class="name">
        {href !== undefined && (
          <a class="entry" href={href}>
            {shown}
          </a>
        )}
        {href === undefined && opens && (
          <button type="button" class="entry" onClick={props.onOpen} title="Download">
            {shown}
          </button>
        )}
        {href === undefined && !opens && <span class="entry">{shown}</span>}
        {entry.target !== undefined && (
          <span class="small muted mono">→ {plain(entry.target)}</span>
        )}
      </td>
      <td class="num">{type === "file" ? bytes(entry.size) : ""}</td>
      <td class="when wide">{moment(new Date(entry.mtimeMs).toISOString())}</td>
      <td class="mono small wide">
        {modeText(entry.mode)}{" "}
        <span class="muted">
          {entry.uid}:{entry.gid}
        </span>
      </td>
      <td class="tools">
        {exact && (
          <>
            {type === "file" && (
              <Button
                kind="quiet"
                bare
                icon="download"
                label={`Download ${plain(name)}`}
                onClick={props.onOpen}
              />
            )}
            <Button
              kind="quiet"
              bare
              icon="edit"
              label={`Rename ${plain(name)}`}
              onClick={props.onRename}
            />
            <Button
              kind="quiet"
              bare
              icon="trash"
              label={`Remove ${plain(name)}`}
              onClick={props.onRemove}
            />
          </>
        )}
      </td>
    </tr>
  );
}
