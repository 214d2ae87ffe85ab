/** Values that several parts of the page look at. */
import { useEffect, useState } from "preact/hooks";

/** One value, and who wants to know of its changes. */
export class Store<T> {
  private current: T;
  private readonly listeners = new Set<() => void>();

  constructor(first: T) {
    this.current = first;
  }

  get value(): T {
    return this.current;
  }

  set value(next: T) {
    if (Object.is(next, this.current)) return;
    this.current = next;
    for (const listener of this.listeners) listener();
  }

  /** @returns ends it */
  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** The value of a store; the component is drawn again when it changes. */
export function useStore<T>(store: Store<T>): T {
  const [, redraw] = useState(0);
  const drawn = store.value;
  useEffect(() => {
    const end = store.subscribe(() => redraw((count) => count + 1));
    // It may have changed after it was drawn and before anybody listened.
    if (!Object.is(drawn, store.value)) redraw((count) => count + 1);
    return end;
  }, [store]);
  return drawn;
}
