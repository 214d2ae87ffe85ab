/** What stands around every page: the way to the others, and the work that goes on. */
import type { ComponentChildren } from "preact";
import { route, to } from "../state/route.ts";
import { session, signOut } from "../state/session.ts";
import { useStore } from "../state/store.ts";
import { theme } from "../state/theme.ts";
import type { Theme } from "../state/theme.ts";
import { dismiss, jobs } from "../state/work.ts";
import { Button, Failure } from "./basics.tsx";
import { Icon } from "./icon.tsx";
import type { IconName } from "./icon.tsx";

/** A place that the navigation leads to. */
export interface Place {
  path: string;
  label: string;
  icon: IconName;
  /** Belongs to the host: shown to admin keys alone. */
  admin?: boolean;
}

function Nav({ places }: { places: readonly Place[] }) {
  const [first = "vms"] = useStore(route);
  return (
    <nav aria-label="Main" class="nav">
      <ul>
        {places.map(({ path, label, icon }) => (
          <li key={path}>
            <a href={to(path)} aria-current={first === path ? "page" : undefined}>
              <Icon name={icon} />
              <span>{label}</span>
            </a>
          </li>
        ))}
      </ul>
    </nav>
  );
}

/** Light, dark or as the system has it. */
function ThemeChoice() {
  const chosen = useStore(theme);
  return (
    <label class="theme">
      <span class="hidden">Colours</span>
      <select
        value={chosen}
        onChange={(event) => (theme.value = event.currentTarget.value as Theme)}
      >
        <option value="system">System</option>
        <option value="light">Light</option>
        <option value="dark">Dark</option>
      </select>
    </label>
  );
}

/** Work that goes on, and how it ended. */
function Tray() {
  const all = useStore(jobs);
  return (
    <div class="tray" role="status" aria-label="Work" aria-live="polite">
      {all.slice(0, 5).map((job) => (
        <div class={`job ${job.state}`} key={job.id}>
          <div class="row">
            <span class="strong clip">{job.title}</span>
            <span class="grow" />
            {job.stop !== undefined && <Button kind="quiet" label="Stop" onClick={job.stop} />}
            {job.state !== "running" && (
              <Button
                kind="quiet"
                bare
                icon="close"
                label="Dismiss"
                onClick={() => dismiss(job.id)}
              />
            )}
          </div>
          {job.state === "running" && (
            <>
              <progress aria-label={job.title} value={job.share} max={1} />
              {job.step !== "" && <p class="small muted clip">{job.step}</p>}
            </>
          )}
          {job.state === "done" && <p class="small muted">Done</p>}
          {job.error !== undefined && <Failure error={job.error} />}
          {job.state === "failed" && job.from !== undefined && (
            <p class="actions end">
              <a class="button" href={job.from} onClick={() => dismiss(job.id)}>
                Change what was asked
              </a>
            </p>
          )}
        </div>
      ))}
    </div>
  );
}

/** The frame. */
export function Frame(props: { places: readonly Place[]; children: ComponentChildren }) {
  const who = useStore(session);
  return (
    <div class="frame">
      <a
        class="skip-link"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("main")?.focus();
        }}
      >
        Skip to the content
      </a>
      <header class="side">
        <a class="brand" href={to("vms")} aria-label="vmsan, all VMs">
          <svg viewBox="0 0 16 16" aria-hidden="true">
            <rect width="16" height="16" rx="4" />
            <path d="M4 5l4 7 4-7" />
          </svg>
          <span>vmsan</span>
        </a>
        <Nav places={props.places} />
        <div class="who">
          <ThemeChoice />
          {who && (
            <p class="small muted clip" title={`vmsan ${who.version}`}>
              {who.admin ? "All projects" : `Project ${who.project}`}
            </p>
          )}
          <Button kind="quiet" icon="out" label="Sign out" bare onClick={signOut} />
        </div>
      </header>
      <main id="main" tabIndex={-1}>
        {props.children}
      </main>
      <Tray />
    </div>
  );
}
