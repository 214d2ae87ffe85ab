/** Fields of forms about a VM: what they show, and how what is written becomes a request. */

/** What the user has written, by field. */
export type Wishes = Record<string, string>;

/** One field. */
export interface Field {
  name: string;
  label: string;
  /** What it means, in a sentence or two. */
  help: string;
  kind: "text" | "number" | "choice" | "lines" | "yes";
  /** What stands there at first. */
  first?: string;
  hint?: string;
  choices?: { value: string; label: string }[];
  /** Units behind a number. */
  unit?: string;
  min?: number;
  max?: number;
  /** Belongs to the network policy. */
  policy?: boolean;
  /** Only keys made with --admin may say it. */
  admin?: boolean;
  /** Whether it matters for what else is wished. */
  shown?: (wishes: Wishes) => boolean;
  /** What it adds to the request; nothing when it is left as it is. */
  put: (value: string, request: Request) => void;
}

/** A part of the form. */
export interface Group {
  title: string;
  /** Folded away at first. */
  folded: boolean;
  fields: Field[];
}

/** The body of `POST /v1/vms`, as far as it has been filled in. */
export type Request = Record<string, unknown> & {
  policy: Record<string, unknown>;
};

/** Its text, under a key of the request. */
export const asText =
  (key: string) =>
  (value: string, request: Request): void => {
    request[key] = value;
  };

/** What is read of it, under a key of the request's network policy. */
export const inPolicy =
  (key: string, read: (text: string) => unknown) =>
  (value: string, request: Request): void => {
    request.policy[key] = read(value);
  };
