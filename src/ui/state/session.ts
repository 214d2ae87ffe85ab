/** Whose key this tab has. */
import { ApiError, call } from "../api/client.ts";
import { currentKey, forgetKey, keepKey } from "../api/key.ts";
import { Store } from "./store.ts";

/** What the gateway says of a key. */
export interface Session {
  version: string;
  project: string;
  admin: boolean;
}

/** Undefined: nobody has signed in; null: not known yet. */
export const session = new Store<Session | undefined | null>(null);

/** Ask whose key this tab has. @throws what is not about the key */
export async function checkSession(): Promise<void> {
  if (currentKey() === undefined) {
    session.value = undefined;
    return;
  }
  try {
    session.value = await call<Session>("GET", "/v1/version");
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    signOut();
  }
}

/** Use a key. @throws when it is none */
export async function signIn(key: string): Promise<void> {
  keepKey(key);
  try {
    session.value = await call<Session>("GET", "/v1/version");
  } catch (error) {
    forgetKey();
    throw error;
  }
}

/** Forget the key. */
export function signOut(): void {
  forgetKey();
  session.value = undefined;
}
