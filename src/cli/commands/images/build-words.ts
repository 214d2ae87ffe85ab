/** Words of `vmsan build`: pairs, secrets, hosts, and where a result goes. */
import type { SaveFormat } from "../../../model/api/images.ts";
import { invalid } from "../../../util/units.ts";

/** `KEY=VALUE` words as a map; a name alone takes the value from the environment, as in Docker. */
export function mapOf(words: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    words.flatMap((word) => {
      const equals = word.indexOf("=");
      if (equals > 0) return [[word.slice(0, equals), word.slice(equals + 1)]];
      const value = process.env[word];
      return value === undefined ? [] : [[word, value]];
    }),
  );
}

/** Labels; a name alone is one without a value. */
export function labelsOf(words: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const equals = word.indexOf("=");
      return equals > 0 ? [word.slice(0, equals), word.slice(equals + 1)] : [word, ""];
    }),
  );
}

/** `NAME=docker-image://IMAGE` words as a map. */
export function contextsOf(words: readonly string[] = []): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const [, name = "", image = ""] = /^([^=]+)=docker-image:\/\/(.+)$/s.exec(word) ?? [];
      if (image !== "") return [name, image];
      throw invalid(
        "FLAGS",
        "--build-context",
        word,
        "Only images are taken: NAME=docker-image://IMAGE.",
        "Copy the directory into the context; or build it (`FROM scratch`, `COPY . /`) and name that image.",
      );
    }),
  );
}

/** What --secret may say. */
const SECRET_FIELDS = new Set(["id", "src", "source", "env", "type"]);

/** A secret's content from a variable; undefined when there is none of that name. */
function variableOf(name: string | undefined): Buffer | undefined {
  const value = name === undefined ? undefined : process.env[name];
  return value === undefined ? undefined : Buffer.from(value);
}

/** `id=NAME,src=FILE` and `id=NAME,env=VARIABLE` words as a map; without either, the variable has the secret's name. */
export function secretsOf(words: readonly string[] = []): Record<string, string | Buffer> {
  return Object.fromEntries(
    words.map((word) => {
      const fields = new Map(
        word.split(",").map((field): [string, string] => {
          const [key = "", ...value] = field.split("=");
          return [key, value.join("=")];
        }),
      );
      const [id = "", source] = [fields.get("id"), fields.get("src") ?? fields.get("source")];
      const type = fields.get("type") ?? "";
      const path = type === "env" ? undefined : source;
      const named = fields.get("env") ?? (type === "env" ? source : undefined);
      const given = path ?? variableOf(named ?? id);
      const plain =
        ["", "file", "env"].includes(type) &&
        [...fields.keys()].every((key) => SECRET_FIELDS.has(key));
      if (plain && id !== "" && given !== undefined && given !== "") return [id, given];
      throw invalid(
        "FLAGS",
        "--secret",
        word,
        "It does not say a file, or a variable that is set.",
        "Give id=NAME,src=FILE or id=NAME,env=VARIABLE.",
      );
    }),
  );
}

/** Kinds of results, by the word for them. */
const FORMATS: Record<string, SaveFormat | undefined> = {
  oci: "oci-archive",
  docker: "docker-archive",
  tar: "rootfs",
};

/** Where a result goes besides the store: an archive (`-`: standard output), or files in a directory. */
export type Destination = { dest: string; format: SaveFormat } | { dir: string };

/** `type=oci|docker|tar[,dest=FILE]`, `type=local,dest=DIR`, and Docker's short forms `DIR` and `-`. */
export function outputOf(text: string): Destination {
  if (text === "-") return { dest: "-", format: "rootfs" };
  if (!text.includes("=")) return { dir: text };
  const match = /^type=(oci|docker|tar|local)(?:,dest=(.+))?$/s.exec(text);
  const [, type = "", dest] = match ?? [];
  const format = FORMATS[type];
  if (format !== undefined) return { dest: dest ?? "-", format };
  if (type === "local" && dest !== undefined && dest !== "-") return { dir: dest };
  throw invalid(
    "FLAGS",
    "--output",
    text,
    "It takes type=local,dest=DIR, or type=tar, type=oci or type=docker with or without ,dest=FILE.",
    "The image is in the store in any case: `vmsan image push NAME` sends it to a registry.",
  );
}
