/**
 * The forms that a secret takes: as it is put into each part of a request, and as a server may send
 * it back. Pure.
 */
import type { KeptSecret, SecretPlace } from "../../model/secret.ts";
import type { Replacement } from "./replace.ts";

/** A secret with its value. */
export interface Held extends KeptSecret {
  value: string;
}

/** Stands for pieces of the value in base64, which no placeholder has the alphabet for. */
const mask = "vmsanSecret";

/** The text as a string in JSON has it, without the quotes. */
const inJson = (text: string): string => JSON.stringify(text).slice(1, -1);

/** Characters that nobody percent-encodes (RFC 3986, section 2.3). */
const unreserved = /[A-Za-z0-9._~-]/;

/**
 * What some leave as they are besides: paths in Python, whole addresses in JavaScript, segments of paths in Go; and forms
 * in browsers and Java, which encode one more.
 */
const leftAlone = [
  /[A-Za-z0-9._~/-]/,
  /[A-Za-z0-9._~;,/?:@&=+$!*'()#-]/,
  /[A-Za-z0-9._~$&+=:@-]/,
  /[A-Za-z0-9._*-]/,
];

/** Every byte percent-encoded, but some. */
function percent(text: string, upper = true, kept = unreserved): string {
  return [...Buffer.from(text)]
    .map((byte) => {
      const char = String.fromCharCode(byte);
      if (kept.test(char)) return char;
      const hex = byte.toString(16).padStart(2, "0");
      return `%${upper ? hex.toUpperCase() : hex}`;
    })
    .join("");
}

/** Characters that some write by their number in JSON: Python and PHP, Go, both, .NET. */
const byNumber = [/[\u0080-\uffff]/g, /[<>&]/g, /[<>&\u0080-\uffff]/g, /[<>&'+`\u007f-\uffff]/g];

/** A string in JSON as others than JavaScript write it. */
function inOthersJson(text: string): string[] {
  const plain = inJson(text);
  // The only one that writes quotes so.
  const dotnet = plain.replaceAll('\\"', "\\u0022");
  return [plain, dotnet].flatMap((form) =>
    byNumber.flatMap((chars) =>
      [false, true].map((upper) =>
        form.replaceAll(chars, (char) => {
          const hex = char.charCodeAt(0).toString(16).padStart(4, "0");
          return `\\u${upper ? hex.toUpperCase() : hex}`;
        }),
      ),
    ),
  );
}

/** How a value is written in a body of some media type. */
function inBody(value: string, mediaType: string): string {
  if (/^application\/x-www-form-urlencoded\b/i.test(mediaType)) return percent(value);
  if (/^[a-z]+\/([a-z0-9.+-]*\+)?json\b/i.test(mediaType)) return inJson(value);
  return value;
}

/**
 * What becomes of placeholders in one part of a request.
 * @param mediaType of the body
 */
export function puttingIn(
  secrets: readonly Held[],
  place: SecretPlace,
  mediaType = "",
): Replacement[] {
  return secrets
    .filter(({ places }) => places.includes(place))
    .map(({ placeholder, value }) => {
      const written =
        place === "query" ? percent(value) : place === "body" ? inBody(value, mediaType) : value;
      return { from: Buffer.from(placeholder), to: Buffer.from(written) };
    });
}

/** What of a value's base64 does not depend on what stands around it, for each of three positions. */
function base64Cores(value: Buffer): string[] {
  return [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), value]).toString("base64");
    const first = Math.ceil((offset * 8) / 6);
    return text.slice(first, Math.floor(((offset + value.length) * 8) / 6));
  });
}

/** Escapes of HTML; the first two are made by everybody, each further one by some. */
const htmlEscapes: [char: string, escapes: string[]][] = [
  ["&", ["&amp;"]],
  ["<", ["&lt;"]],
  [">", ["&gt;"]],
  ['"', ["&quot;", "&#34;", "&#x22;"]],
  ["'", ["&#39;", "&#x27;", "&apos;"]],
];

/** What everybody escapes but quotes. */
const tags = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };

/**
 * Escapes of those who write more marks by their number: mustache, as OWASP wishes, underscore, Go's templates, .NET (other letters
 * besides).
 */
const moreEscapes: readonly Readonly<Record<string, string>>[] = [
  { ...tags, '"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;" },
  { ...tags, '"': "&quot;", "'": "&#x27;", "/": "&#x2F;" },
  { ...tags, '"': "&quot;", "'": "&#x27;", "`": "&#x60;" },
  { ...tags, '"': "&#34;", "'": "&#39;", "+": "&#43;" },
  { ...tags, '"': "&quot;", "'": "&#x27;", "+": "&#x2B;", "`": "&#x60;", other: "&#x" },
];

/** The text as HTML may have it. */
function inHtml(text: string): string[] {
  const forms = htmlEscapes.reduce(
    (before, [char, escapes], index) =>
      before.flatMap((form) => [
        ...(index < 2 ? [] : [form]),
        ...escapes.map((escape) => form.replaceAll(char, escape)),
      ]),
    [text],
  );
  const numbered = moreEscapes.map(({ other, ...escapes }) =>
    Array.from(text, (char) => {
      const code = char.codePointAt(0) ?? 0;
      if (other !== undefined && code > 0x7e) return `${other}${code.toString(16).toUpperCase()};`;
      return escapes[char] ?? char;
    }).join(""),
  );
  // Numbers have two cases where they are hexadecimal.
  const lower = numbered.map((form) =>
    form.replaceAll(/&#x[0-9A-F]+;/g, (escape) => escape.toLowerCase()),
  );
  return [...forms, ...numbered, ...lower];
}

/** Of a length, repeated or cut. */
function ofLength(text: string, length: number): string {
  return text.repeat(Math.ceil(length / text.length)).slice(0, length);
}

/**
 * What a server may send back of the values: as they are and in the usual encodings, each with what
 * the guest gets to see instead.
 * @param sameLength every replacement is as long as what it stands for
 */
export function takingOut(secrets: readonly Held[], sameLength: boolean): Replacement[] {
  const found = new Map<string, string>();
  const add = (from: string, to: string): void => {
    if (from !== to && !found.has(from)) found.set(from, to);
  };
  for (const { value, placeholder } of secrets) {
    add(value, placeholder);
    for (const form of [percent(value), percent(value, false), inJson(value), ...inHtml(value)]) {
      add(form, placeholder);
    }
    // As forms and query strings are often written: blanks as +, these marks as they are.
    add(encodeURIComponent(value), placeholder);
    add(percent(value).replaceAll("%20", "+"), placeholder);
    for (const kept of leftAlone) {
      add(percent(value, true, kept), placeholder);
      add(percent(value, true, kept).replaceAll("%20", "+"), placeholder);
    }
    for (const form of [inJson(value), ...inOthersJson(value)]) {
      add(form, placeholder);
      add(form.replaceAll("/", "\\/"), placeholder);
    }
    const bytes = Buffer.from(value);
    for (const core of base64Cores(bytes)) {
      for (const form of [core, core.replaceAll("+", "-").replaceAll("/", "_"), percent(core)]) {
        add(form, ofLength(mask, form.length));
      }
    }
    for (const hex of [bytes.toString("hex"), bytes.toString("hex").toUpperCase()]) {
      add(hex, Buffer.from(placeholder).toString("hex"));
    }
  }
  return [...found].map(([from, to]) => ({
    from: Buffer.from(from),
    to: Buffer.from(sameLength ? ofLength(to, Buffer.byteLength(from)) : to),
  }));
}
