/** Terminals: sessions with names, which survive a reload and are shared by all who open them. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import type { StreamEnd } from "../api/stream.ts";
import { errorInfo } from "../api/client.ts";
import { AskText, Button, Failure } from "../parts/basics.tsx";
import { go, to } from "../state/route.ts";
import { useStore } from "../state/store.ts";
import { isDark, theme } from "../state/theme.ts";
import { joinSession, listSessions } from "./sessions.ts";
import { Halted } from "./halted.tsx";
import type { TabProps } from "./tab.ts";

/** The session that is opened where none is named; `vmsan connect` opens the same one. */
const FIRST = "main";
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/;

/** How it is with a session. */
type State =
  | { is: "joining" | "open" | "lost" }
  | { is: "ended"; end: StreamEnd }
  | { is: "failed"; error: ErrorInfo };

function said(end: StreamEnd): string {
  if (end.oomKilled === true) return "It was ended because the guest had no memory left.";
  return end.signal === undefined ? `Status ${end.exitCode}.` : `Ended by ${end.signal}.`;
}

function Session({ vm, name }: { vm: TabProps["vm"]; name: string }) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<State>({ is: "joining" });
  const [round, setRound] = useState(0);
  useStore(theme);
  const paint = useRef<(dark: boolean) => void>(undefined);
  paint.current?.(isDark());
  useEffect(() => {
    const abort = new AbortController();
    const { signal } = abort;
    const begin = async (): Promise<void> => {
      const { makeTerminal } = await import("./xterm.ts");
      if (signal.aborted || place.current === null) return;
      const made = makeTerminal(place.current, isDark());
      const { terminal } = made;
      ({ paint: paint.current } = made);
      signal.addEventListener("abort", () => terminal.dispose());
      let printed = 0;
      // Answers to what was asked before this page was opened are not given again.
      let quiet = true;
      const events = {
        onOutput: (_output: number, bytes: Uint8Array, offset: number) =>
          new Promise<void>((taken) => {
            const old = offset < printed;
            terminal.write(bytes, () => {
              if (!old || offset + bytes.length >= printed) quiet = false;
              taken();
            });
          }),
        onGap: () => terminal.write("\r\n\x1b[2m(older output is gone)\x1b[0m\r\n"),
        onExit: (end: StreamEnd) => setState({ is: "ended", end }),
        onFail: (error: ErrorInfo) => setState({ is: "failed", error }),
        onConnected: (connected: boolean) => setState({ is: connected ? "open" : "lost" }),
      };
      const { rows, cols } = terminal;
      const joined = await joinSession(vm, name, { rows, cols }, events, signal);
      const { socket } = joined;
      ({ printed } = joined);
      if (printed === 0) quiet = false;
      signal.addEventListener("abort", () => socket.close());
      socket.resize(rows, cols);
      terminal.onResize((size) => socket.resize(size.rows, size.cols));
      terminal.onData((text) => {
        if (!quiet) socket.write(new TextEncoder().encode(text));
      });
      terminal.onBinary((text) => {
        if (!quiet) socket.write(Uint8Array.from(text, (character) => character.charCodeAt(0)));
      });
      // Every other key is the shell's, Tab too: without this one a keyboard could not get out.
      terminal.attachCustomKeyEventHandler((event) => {
        const leaves = event.ctrlKey && event.shiftKey && event.code === "KeyL";
        if (leaves && event.type === "keydown")
          document.querySelector<HTMLElement>(".sessions a")?.focus();
        return !leaves;
      });
      const watcher = new ResizeObserver(() => made.fit());
      watcher.observe(place.current);
      signal.addEventListener("abort", () => watcher.disconnect());
      terminal.focus();
    };
    setState({ is: "joining" });
    begin().catch((error: unknown) => {
      if (!signal.aborted) setState({ is: "failed", error: errorInfo(error) });
    });
    return () => abort.abort();
  }, [vm.id, name, round]);
  return (
    <div class="session">
      <div class="terminal-box" ref={place} data-state={state.is} />
      <div class="session-state" role="status">
        {state.is === "open" && (
          <p class="small muted wide">Ctrl+Shift+L takes the keyboard out of the terminal.</p>
        )}
        {state.is === "joining" && <p class="small muted">Opening…</p>}
        {state.is === "lost" && <p class="small">The connection is broken; it is tried again.</p>}
        {state.is === "failed" && <Failure error={state.error} />}
        {state.is === "ended" && (
          <p class="row">
            <span>The shell has ended. {said(state.end)}</span>
            <Button label="Open another" onClick={() => setRound((count) => count + 1)} />
          </p>
        )}
      </div>
    </div>
  );
}

/** The tab. */
export function TerminalTab({ vm, rest }: TabProps) {
  const name = rest[0] !== undefined && NAME.test(rest[0]) ? rest[0] : FIRST;
  const [others, setOthers] = useState<string[]>([]);
  const [asked, setAsked] = useState(false);
  const runs = vm.status === "running";
  useEffect(() => {
    if (!runs) return undefined;
    // The name stands in the address, so that a copied address opens the same session.
    if (rest[0] !== name) go(["vms", vm.id, "terminal", name], true);
    const abort = new AbortController();
    listSessions(vm.id, abort.signal).then(setOthers, () => undefined);
    return () => abort.abort();
  }, [vm.id, name, runs]);
  if (!runs) return <Halted vm={vm} icon="terminal" />;
  const sessions = [...new Set([...others, name])];
  return (
    <div class="terminals">
      <nav class="sessions" aria-label="Sessions">
        {sessions.map((one) => (
          <a
            key={one}
            href={to("vms", vm.id, "terminal", one)}
            aria-current={one === name ? "page" : undefined}
          >
            {one}
          </a>
        ))}
        <Button kind="quiet" bare icon="plus" label="New session" onClick={() => setAsked(true)} />
        <span class="grow" />
        <span class="small muted wide">
          Also:{" "}
          <code>
            vmsan connect {vm.name ?? vm.id}
            {name === FIRST ? "" : ` -s ${name}`}
          </code>
        </span>
      </nav>
      <Session key={name} vm={vm} name={name} />
      {asked && (
        <AskText
          title="New session"
          label="Name"
          help="Letters, digits, '.', '_' and '-'. Who opens the same name shares the session."
          action="Open"
          onClose={() => setAsked(false)}
          onText={(text) => {
            if (NAME.test(text)) go(["vms", vm.id, "terminal", text]);
          }}
        />
      )}
    </div>
  );
}
