/** The small parts that every page is made of. */
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ErrorInfo } from "../../model/errors.ts";
import type { VmStatus } from "../../model/vm.ts";
import { plain } from "../state/format.ts";
import { Icon } from "./icon.tsx";
import type { IconName } from "./icon.tsx";

/** A button with a picture. `quiet`: without a frame; `danger`: takes something away. */
export function Button(props: {
  icon?: IconName;
  label: string;
  /** Shows the picture alone; the label is read aloud and shown on hovering. */
  bare?: boolean;
  kind?: "primary" | "quiet" | "danger";
  type?: "submit";
  disabled?: boolean;
  title?: string;
  expanded?: boolean;
  onClick?: (event: Event) => void;
}) {
  const { icon, label, bare, kind, type, disabled, title, expanded, onClick } = props;
  return (
    <button
      type={type ?? "button"}
      class={["button", kind ?? "", bare ? "bare" : ""].join(" ")}
      aria-label={bare ? label : undefined}
      aria-expanded={expanded}
      title={title ?? (bare ? label : undefined)}
      disabled={disabled}
      onClick={onClick}
    >
      {icon !== undefined && <Icon name={icon} />}
      {!bare && <span>{label}</span>}
    </button>
  );
}

/** A link that looks like a button. */
export function ButtonLink(props: {
  icon?: IconName;
  label: string;
  href: string;
  kind?: "primary" | "quiet";
}) {
  return (
    <a class={`button ${props.kind ?? ""}`} href={props.href}>
      {props.icon !== undefined && <Icon name={props.icon} />}
      <span>{props.label}</span>
    </a>
  );
}

/** States in words. */
export const STATUS: Record<VmStatus, string> = {
  creating: "creating",
  running: "running",
  paused: "paused",
  suspended: "asleep",
  stopped: "stopped",
  error: "failed",
};

/** The state of a VM, as a dot and a word. */
export function Status({ of }: { of: VmStatus }) {
  return (
    <span class={`status ${of}`}>
      <span class="dot" aria-hidden="true" />
      {STATUS[of]}
    </span>
  );
}

/** What went wrong: what, why, and what to do. */
export function Failure({ error, what }: { error: ErrorInfo; what?: string }) {
  return (
    <div class="failure" role="alert">
      <Icon name="warn" />
      <div>
        <p class="strong">
          {what === undefined ? "" : `${what}: `}
          {error.message}
        </p>
        {error.why !== undefined && error.why !== "" && <p>{error.why}</p>}
        {error.fix !== undefined && <p class="muted">{error.fix}</p>}
        {error.code !== "" && <p class="mono small muted">{error.code}</p>}
      </div>
    </div>
  );
}

/** Nothing is here yet, and what to do about it. */
export function Empty(props: { icon: IconName; title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <Icon name={props.icon} />
      <p class="strong">{props.title}</p>
      {props.children}
    </div>
  );
}

/** A page's heading; it gets the focus when the page opens, so that it is read aloud. */
export function PageHead(props: {
  title: string;
  /** Behind the title. */
  aside?: ComponentChildren;
  above?: ComponentChildren;
  children?: ComponentChildren;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${props.title} · vmsan`;
    heading.current?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [props.title]);
  return (
    <header class="page-head">
      {props.above}
      <div class="row">
        <h1 tabIndex={-1} ref={heading}>
          {props.title}
        </h1>
        {props.aside}
        <span class="grow" />
        {props.children !== undefined && <div class="actions">{props.children}</div>}
      </div>
    </header>
  );
}

/** A titled part of a page. */
export function Section(props: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <section class="section">
      <div class="section-head">
        <h2>{props.title}</h2>
        <span class="grow" />
        {props.aside}
      </div>
      {props.children}
    </section>
  );
}

/** Names and values side by side. */
export function Facts({ of }: { of: [string, ComponentChildren][] }) {
  return (
    <dl class="facts">
      {of
        .filter(([, value]) => value !== undefined && value !== null && value !== "")
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

/** Text of a guest in one line, cut off where there is no room. */
export function Foreign({ text, mono }: { text: string; mono?: boolean }) {
  return <bdi class={mono ? "mono" : ""}>{plain(text)}</bdi>;
}

/** A window over the page: Escape and a click beside it close it. */
export function Dialog(props: { title: string; onClose: () => void; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => element.current?.showModal(), []);
  return (
    <dialog
      ref={element}
      aria-label={props.title}
      onClose={props.onClose}
      onClick={(event) => {
        if (event.target === element.current) element.current?.close();
      }}
    >
      <div class="dialog">
        <div class="row">
          <h2>{props.title}</h2>
          <span class="grow" />
          <Button kind="quiet" icon="close" label="Close" bare onClick={props.onClose} />
        </div>
        {props.children}
      </div>
    </dialog>
  );
}

/** A question before something is taken away. */
export function Confirm(props: {
  title: string;
  text: string;
  action: string;
  onConfirm: () => void;
  onClose: () => void;
}) {
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <p>{props.text}</p>
      <div class="actions end">
        <Button label="Cancel" onClick={props.onClose} />
        <Button
          kind="danger"
          label={props.action}
          onClick={() => {
            props.onClose();
            props.onConfirm();
          }}
        />
      </div>
    </Dialog>
  );
}

/** A window that asks for one line of text. */
export function AskText(props: {
  title: string;
  label: string;
  help?: string;
  action: string;
  first?: string;
  /** Whether nothing is an answer too. */
  optional?: boolean;
  onText: (text: string) => void;
  onClose: () => void;
}) {
  const [text, setText] = useState(props.first ?? "");
  return (
    <Dialog title={props.title} onClose={props.onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          props.onClose();
          props.onText(text.trim());
        }}
      >
        <label class="field">
          <span class="label">{props.label}</span>
          <input
            value={text}
            required={props.optional !== true}
            autocomplete="off"
            spellcheck={false}
            onInput={(event) => setText(event.currentTarget.value)}
          />
          {props.help !== undefined && <span class="help">{props.help}</span>}
        </label>
        <div class="actions end">
          <Button label="Cancel" onClick={props.onClose} />
          <Button kind="primary" type="submit" label={props.action} />
        </div>
      </form>
    </Dialog>
  );
}
