/** What a part of the page asks the gateway for: once, and again when told or at intervals. */
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import { call, errorInfo } from "../api/client.ts";

/** An answer. */
export interface Asked<T> {
  /** Undefined before the first one. */
  data?: T;
  error?: ErrorInfo;
  /** Ask again. */
  refresh: () => void;
}

/**
 * Ask by GET.
 * @param path undefined: nothing is asked
 * @param everyMs asks again at that interval while the page is in sight
 * @param turn asks again when it changes
 */
export function useAsk<T>(path: string | undefined, everyMs?: number, turn?: unknown): Asked<T> {
  const [state, setState] = useState<{ path?: string; data?: T; error?: ErrorInfo }>({});
  const [round, setRound] = useState(0);
  const last = useRef("");
  const refresh = useCallback(() => setRound((count) => count + 1), []);
  useEffect(() => {
    if (path === undefined) return undefined;
    const abort = new AbortController();
    const ask = async (): Promise<void> => {
      try {
        const data = await call<T>("GET", path, { signal: abort.signal });
        const text = JSON.stringify(data);
        if (text === last.current) return;
        last.current = text;
        setState({ path, data });
      } catch (error) {
        if (abort.signal.aborted) return;
        last.current = "";
        setState((old) => ({ ...old, path, error: errorInfo(error) }));
      }
    };
    last.current = "";
    void ask();
    const look = (): void => void (document.visibilityState === "visible" && ask());
    const timer = everyMs === undefined ? undefined : setInterval(look, everyMs);
    return () => {
      abort.abort();
      clearInterval(timer);
    };
  }, [path, round, everyMs, turn]);
  // An answer about something else is none.
  if (state.path !== path) return { refresh };
  return { data: state.data, error: state.error, refresh };
}

/** The time, renewed at an interval. */
export function useNow(everyMs = 1_000): number {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(Date.now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return now;
}
