/**
 * `--link` of COPY and ADD: where files are laid, each on a layer of its own, which BuildKit can put on other layers
 * without copying again. The files are those of a plain COPY, unless the destination leads over a symbolic link, which
 * is followed then. The builder's buildah refuses the word, so it is taken out, at instructions' beginnings only.
 */
import { escapeOf } from "./escape.ts";

/** A heredoc's beginning: a word of its own, unlike `<<<WORD` and `$((1<<2))`. */
const HEREDOC = /(?<!\S)\d*<<(-?)["']?([^<\s"']+)["']?/g;

/** Blanks between the words of an instruction, with line ends that are escaped and comments between these. */
function blanks(escape: string): string {
  const mark = escape === "`" ? "`" : "\\\\";
  return `(?:[ \\t]|${mark}[ \\t]*\\r?\\n(?:[ \\t]*(?:#[^\\n]*)?\\r?\\n)*)+`;
}

/** An instruction's text, or a line that is none, by their first lines' numbers from 0. */
function* instructionsOf(lines: readonly string[], escape: string): Generator<[number, number]> {
  for (let at = 0; at < lines.length;) {
    let end = at;
    const first = lines[at] ?? "";
    const inside = (line: string): boolean => line.trimEnd().endsWith(escape);
    if (!/^\s*(#.*)?$/.test(first)) {
      while (end + 1 < lines.length) {
        const line = lines[end] ?? "";
        // A comment, or an empty line, within an instruction does not end it.
        if (!inside(line) && !(end > at && /^\s*(#.*)?$/.test(line))) break;
        end += 1;
      }
    }
    yield [at, end];
    const text = lines.slice(at, end + 1).join("\n");
    at = end + 1;
    if (/^\s*#/.test(text)) continue;
    for (const [, dash = "", word = ""] of text.matchAll(HEREDOC)) {
      const ends = (line: string): boolean =>
        (dash === "" ? line : line.replace(/^\t+/, "")).replace(/\r$/, "") === word;
      while (at < lines.length && !ends(lines[at] ?? "")) at += 1;
      at += 1;
    }
  }
}

/**
 * A Dockerfile without `--link` at COPY and ADD. Lines stay where they are.
 * @returns undefined when there is none
 */
export function withoutLinks(dockerfile: string): string | undefined {
  if (!/--link\b/.test(dockerfile)) return undefined;
  const escape = escapeOf(dockerfile);
  const between = blanks(escape);
  const link = new RegExp(
    `^(\\uFEFF?\\s*(?:ONBUILD${between})?(?:COPY|ADD)(?:${between}--(?!link\\b)\\S+)*)${between}--link(?:=(?:true|1|t))?(?=\\s)`,
    "i",
  );
  const lines = dockerfile.split("\n");
  let found = false;
  for (const [from, to] of instructionsOf(lines, escape)) {
    const text = lines.slice(from, to + 1).join("\n");
    const plain = text.replace(link, (whole, before: string) => {
      const ends = whole.slice(before.length).split("\n").length - 1;
      return before + `${escape}\n`.repeat(ends);
    });
    if (plain === text) continue;
    found = true;
    lines.splice(from, to + 1 - from, ...plain.split("\n"));
  }
  return found ? lines.join("\n") : undefined;
}
