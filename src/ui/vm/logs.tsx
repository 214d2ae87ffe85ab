/** What the guest's console and its commands have said, as they say it. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import { ask, call, errorInfo, openSocket, part } from "../api/client.ts";
import { GuestSocket } from "../api/stream.ts";
import { Button, Failure, Foreign } from "../parts/basics.tsx";
import { ago, plain } from "../state/format.ts";
import { useNow } from "../state/ask.ts";
import { to } from "../state/route.ts";
import { listStreams } from "./sessions.ts";
import type { StreamInfo } from "./sessions.ts";
import type { TabProps } from "./tab.ts";

/** Most characters of a log that are shown. */
const MOST = 400_000;
const LOOK_MS = 3_000;

/** Escape sequences: colours, titles, movements. Spelt so that the source has no control characters. */
const ESCAPES = new RegExp(
  ["\\[[0-9;?]*[ -/]*[@-~]", "\\][^\\u0007\\u001b]*(?:\\u0007|\\u001b\\\\)", "[@-Z\\\\-_]"]
    .map((form) => `\\u001b${form}`)
    .join("|"),
  "g",
);

/** What a terminal would make of it but for colours. */
const withoutEscapes = (text: string): string => text.replaceAll(ESCAPES, "");

/** One line of text that grows; scrolls along while one looks at its end. */
function useLog(): { text: string; add: (more: string) => void; reset: () => void } {
  const [text, setText] = useState("");
  const pending = useRef("");
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const add = (more: string): void => {
    pending.current += more;
    timer.current ??= setTimeout(() => {
      timer.current = undefined;
      const fresh = pending.current;
      pending.current = "";
      setText((old) => (old + fresh).slice(-MOST));
    }, 50);
  };
  const reset = (): void => {
    pending.current = "";
    setText("");
  };
  return { text, add, reset };
}

function LogText({ text, label }: { text: string; label: string }) {
  const place = useRef<HTMLPreElement>(null);
  const atEnd = useRef(true);
  useEffect(() => {
    const element = place.current;
    if (element !== null && atEnd.current) element.scrollTop = element.scrollHeight;
  }, [text]);
  return (
    <pre
      class="log"
      ref={place}
      tabIndex={0}
      role="log"
      aria-label={label}
      aria-live="off"
      onScroll={({ currentTarget: { scrollTop, scrollHeight, clientHeight } }) => {
        atEnd.current = scrollHeight - scrollTop - clientHeight < 24;
      }}
    >
      {withoutEscapes(text)}
    </pre>
  );
}

function Console({ vm }: { vm: string }) {
  const { text, add, reset } = useLog();
  const [error, setError] = useState<ErrorInfo>();
  useEffect(() => {
    const abort = new AbortController();
    const read = async (): Promise<void> => {
      const path = `/v1/vms/${part(vm)}/console?follow=true`;
      const reply = await ask("GET", path, { signal: abort.signal });
      const reader = reply.body?.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
        if (done || value === undefined) return;
        add(value);
      }
    };
    reset();
    read().catch((problem: unknown) => {
      if (!abort.signal.aborted) setError(errorInfo(problem));
    });
    return () => abort.abort();
  }, [vm]);
  return (
    <>
      {error !== undefined && <Failure error={error} />}
      <LogText text={text} label="Console" />
    </>
  );
}

/** The outputs of a command, both together. */
function CommandLog({ vm, id }: { vm: string; id: string }) {
  const { text, add } = useLog();
  const [error, setError] = useState<ErrorInfo>();
  useEffect(() => {
    const decoders = { 1: new TextDecoder(), 2: new TextDecoder() };
    const socket = new GuestSocket(
      (path) => openSocket(vm, path),
      { id, observe: true },
      {
        onOutput: (output, bytes) => add(decoders[output].decode(bytes, { stream: true })),
        onGap: (_output, from, to) => add(`\n(${to - from} bytes are no longer kept)\n`),
        onExit: () => undefined,
        onFail: setError,
      },
    );
    return () => socket.close();
  }, [vm, id]);
  return (
    <>
      {error !== undefined && <Failure error={error} />}
      <LogText text={text} label="Output" />
    </>
  );
}

function stateOf({ running, exit }: StreamInfo): string {
  if (running) return "runs";
  if (exit?.signal !== undefined) return `ended by ${exit.signal}`;
  return `ended, status ${exit?.exitCode ?? "?"}`;
}

/** Commands that run, or have run and are kept. */
function useCommands(vm: string, runs: boolean): StreamInfo[] {
  const [list, setList] = useState<StreamInfo[]>([]);
  useEffect(() => {
    if (!runs) {
      setList([]);
      return undefined;
    }
    const abort = new AbortController();
    const look = (): void => {
      if (document.visibilityState !== "visible") return;
      listStreams(vm, abort.signal).then(
        (all) => setList(all.filter(({ kind }) => kind === "exec")),
        // The VM may have stopped: the list says so elsewhere.
        () => undefined,
      );
    };
    look();
    const timer = setInterval(look, LOOK_MS);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [vm, runs]);
  return list;
}

/** The tab. */
export function LogsTab({ vm, rest }: TabProps) {
  const [shown = ""] = rest;
  const commands = useCommands(vm.id, vm.status === "running");
  const now = useNow(5_000);
  const chosen = commands.find(({ id }) => id === shown);
  const link = (id: string): string => to("vms", vm.id, "logs", ...(id === "" ? [] : [id]));
  const end = async (id: string): Promise<void> => {
    const path = `/v1/vms/${part(vm.id)}/agent/v1/streams/${id}/signal`;
    // One that has ended meanwhile needs none.
    await call("POST", path, { body: { signal: "SIGTERM", tree: true } }).catch(() => undefined);
  };
  return (
    <div class="logs">
      <nav class="log-list" aria-label="Logs">
        <a href={link("")} aria-current={shown === "" ? "page" : undefined}>
          <span class="strong">Console</span>
          <span class="small muted">kernel and init</span>
        </a>
        {commands.map((command) => (
          <a
            key={command.id}
            href={link(command.id)}
            aria-current={command.id === shown ? "page" : undefined}
          >
            <span class="clip mono">
              <Foreign
                text={
                  command.argv.length === 0
                    ? command.label || "login shell"
                    : command.argv.join(" ")
                }
              />
            </span>
            <span class="small muted">
              {stateOf(command)}, {ago(command.startedAt, now)}
            </span>
          </a>
        ))}
      </nav>
      <div class="log-pane">
        {chosen?.running === true && (
          <p class="row small">
            <span class="mono clip">{plain(chosen.argv.join(" "))}</span>
            <span class="grow" />
            <Button kind="danger" icon="stop" label="End it" onClick={() => void end(chosen.id)} />
          </p>
        )}
        {shown === "" ? (
          <Console key={vm.startedAt} vm={vm.id} />
        ) : (
          <CommandLog key={shown} vm={vm.id} id={shown} />
        )}
      </div>
    </div>
  );
}
