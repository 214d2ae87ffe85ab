/** Secrets as people write them; the values come from this process's environment and files. */
import { readFileSync } from "node:fs";
import { messageOf } from "../../model/errors.ts";
import type { VmsanError } from "../../model/errors.ts";
import type { SecretPlace, SecretRequest } from "../../model/secret.ts";
import { badSecret, parseSecretDomain, secretPlaces } from "../../network/policy/secrets.ts";

/** A secret in full: exactly one of `value`, `env` and `file` says where its value is. */
export interface SecretOptions {
  /** Name of the guest's environment variable that has the placeholder. */
  name: string;
  value?: string;
  /** Name of a variable of this process. */
  env?: string;
  /** Path of a file; a line end at its end is not part of the value. */
  file?: string;
  /** `[https://|http://]host[:port]`; without any those that the network policy allows. */
  domains?: string[];
  /** Parts of a request in which the placeholder is replaced; default all. */
  places?: SecretPlace[];
}

/** Largest file that is read, in bytes; values are shorter still. */
const MAX_FILE = 64 * 1024;

/** A list of domains, as far as it tells them from the end of a path. */
const DOMAINS = /^(?:https?:\/\/)?[^/@,]+(?:,(?:https?:\/\/)?[^/@,]+)*$/i;

/**
 * `NAME=env[:OTHER]|file:PATH[@DOMAIN,…][#PLACE,…]`.
 * @throws ERR_VALIDATION_SECRET; what is not understood is not repeated: it may be a value
 */
export function parseSecretWord(word: string): SecretOptions {
  const at = word.indexOf("=");
  const name = word.slice(0, Math.max(at, 0));
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
    throw badSecret(
      "Cannot read a secret",
      "It does not begin with the name of a variable and =.",
      "For example: --secret TOKEN=env@api.example.com.",
    );
  }
  const [, source = "", places] =
    /^(.*?)(?:#([a-z]+(?:,[a-z]+)*))?$/s.exec(word.slice(at + 1)) ?? [];
  const split = source.lastIndexOf("@");
  const hasDomains = split >= 0 && DOMAINS.test(source.slice(split + 1));
  const place = hasDomains ? source.slice(0, split) : source;
  const options: SecretOptions = { name };
  const [, kind, rest = ""] = /^(env|file)(?::(.*))?$/s.exec(place) ?? [];
  if (kind === "env") options.env = rest === "" ? name : rest;
  else if (kind === "file" && rest !== "") options.file = rest;
  else {
    throw badSecret(
      `Cannot read the secret ${name}`,
      "Behind = it takes env, env:VARIABLE or file:PATH; a value on a command line could be read by everybody here.",
      `For example: --secret ${name}=env@api.example.com, or --secret ${name}=file:./token@api.example.com.`,
    );
  }
  if (hasDomains) options.domains = source.slice(split + 1).split(",");
  if (places !== undefined) options.places = places.split(",") as SecretPlace[];
  return options;
}

/** A file's text. @throws ERR_VALIDATION_SECRET */
function textOf(name: string, path: string): string {
  const wrong = (why: string): VmsanError =>
    badSecret(
      `Cannot read the secret ${name} from ${path}`,
      why,
      "Name a file of one line of text.",
    );
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    throw wrong(messageOf(error));
  }
  if (bytes.length > MAX_FILE) throw wrong("It is too long.");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes).replace(/\r?\n$/, "");
  } catch {
    // TypeError: the bytes are no UTF-8.
    throw wrong("It is not UTF-8.");
  }
}

/** A secret's value. @throws ERR_VALIDATION_SECRET */
function valueOf({ name, value, env, file }: SecretOptions): string {
  if ([value, env, file].filter((source) => source !== undefined).length !== 1) {
    throw badSecret(
      `Cannot use the secret ${name}`,
      "It needs exactly one of value, env and file.",
      "Say where its value is.",
    );
  }
  if (value !== undefined) return value;
  if (file !== undefined) return textOf(name, file);
  const found = process.env[env ?? ""];
  if (found !== undefined && found !== "") return found;
  throw badSecret(
    `Cannot use the secret ${name}`,
    `There is no variable ${env} here.`,
    `Set it, or name another: --secret ${name}=env:VARIABLE@DOMAIN.`,
  );
}

/** The daemon's request for these secrets. @throws ERR_VALIDATION_SECRET, ERR_VALIDATION_DOMAIN, ERR_VALIDATION_PORT */
export function secretRequests(secrets: readonly (string | SecretOptions)[]): SecretRequest[] {
  return secrets.map((given) => {
    const options = typeof given === "string" ? parseSecretWord(given) : given;
    const { name, domains = [], places } = options;
    // Said before anything is made, and where the user is.
    for (const domain of domains) parseSecretDomain(domain);
    const unknown = places?.find((place) => !secretPlaces.includes(place));
    if (unknown !== undefined) {
      throw badSecret(
        `Cannot use the secret ${name}`,
        `${JSON.stringify(unknown)} is no part of a request.`,
        `Parts are ${secretPlaces.join(", ")}.`,
      );
    }
    return { name, value: valueOf(options), domains, ...(places === undefined ? {} : { places }) };
  });
}
