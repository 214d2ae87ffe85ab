/**
 * Where a step stands in the Dockerfile: buildah says a step's text, and not its line. Nothing is parsed: a line counts
 * when it, with what continues it, is that text.
 */
import { escapeOf } from "./escape.ts";

/** Lines of one instruction, at most. */
const MOST = 1000;

/** A text without what an instruction's parts may be told apart by. */
function packed(text: string): string {
  return text.replaceAll(/\s+/g, "");
}

/**
 * Numbers of the lines, from 1, at which a step may begin: several, when the same instruction stands there several times.
 * @param step as buildah says it: `[1/2] STEP 2/5: RUN make`
 */
export function linesOf(dockerfile: string, step: string): number[] {
  const text = packed(step.replace(/^(\[\d+\/\d+\] )?STEP \d+(\/\d+)?: /, ""));
  if (text === "") return [];
  const escape = escapeOf(dockerfile);
  const lines = dockerfile.replace(/^\uFEFF/, "").split(/\r?\n/);
  const found: number[] = [];
  for (const [index, first] of lines.entries()) {
    const begins = packed(first)
      .slice(0, 8)
      .replace(/[\\`]$/, "");
    if (begins === "" || !text.startsWith(begins)) continue;
    let whole = "";
    for (const line of lines.slice(index, index + MOST)) {
      // A comment, or an empty line, within an instruction is none of it.
      if (whole !== "" && /^\s*(#.*)?$/.test(line)) continue;
      const continued = line.trimEnd().endsWith(escape);
      whole += packed(continued ? line.trimEnd().slice(0, -1) : line);
      if (!continued) break;
    }
    // buildah adds to a heredoc's line what it has been given, and long ones are cut.
    if (whole === text || (text.startsWith(whole) && whole.includes("<<")) || isCut(whole, text)) {
      found.push(index + 1);
    }
  }
  return found;
}

/** Whether a text is the beginning of a long one. */
function isCut(whole: string, text: string): boolean {
  return text.length > 200 && whole.startsWith(text);
}
