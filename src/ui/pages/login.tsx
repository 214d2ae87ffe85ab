/** Signing in with a key, where none was handed over. */
import { useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import { errorInfo } from "../api/client.ts";
import { Button, Failure } from "../parts/basics.tsx";
import { signIn } from "../state/session.ts";

/** The page. */
export function Login() {
  const [key, setKey] = useState("");
  const [error, setError] = useState<ErrorInfo>();
  const [busy, setBusy] = useState(false);
  const submit = async (): Promise<void> => {
    setBusy(true);
    try {
      await signIn(key.trim());
    } catch (problem) {
      setError(errorInfo(problem));
    } finally {
      setBusy(false);
    }
  };
  return (
    <main class="login">
      <h1>vmsan</h1>
      <p>
        <code>vmsan ui</code> on the host opens this page signed in. From elsewhere, give an API
        key: <code>vmsan key create</code> makes one.
      </p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void submit();
        }}
      >
        <label class="field">
          <span class="label">API key</span>
          <input
            type="password"
            value={key}
            required
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => setKey(event.currentTarget.value)}
          />
          <span class="help">It is kept for this tab and forgotten when the tab is closed.</span>
        </label>
        {error !== undefined && <Failure error={error} />}
        <Button kind="primary" type="submit" label="Sign in" disabled={busy} />
      </form>
    </main>
  );
}
