/** The character that continues lines of a Dockerfile. */

/** A line that may be a parser directive: nothing before its mark, one name, a value. */
const DIRECTIVE = /^#\s*([a-z][a-z0-9]*)\s*=(.*)$/is;

/** The directives that Docker knows; any other one is a comment, behind which there are none. */
const KNOWN = new Set(["syntax", "escape", "check"]);

/**
 * What a Dockerfile's directive `escape` says, as Docker documents it: directives stand at its very top, above comments,
 * empty lines and instructions, in any case of letters.
 */
export function escapeOf(dockerfile: string): "\\" | "`" {
  let at = dockerfile.startsWith("\uFEFF") ? 1 : 0;
  while (at < dockerfile.length) {
    const end = dockerfile.indexOf("\n", at);
    const line = dockerfile.slice(at, end < 0 ? undefined : end);
    const [, name = "", value = ""] = DIRECTIVE.exec(line) ?? [];
    const word = name.toLowerCase();
    if (!KNOWN.has(word)) break;
    if (word === "escape") return value.trim() === "`" ? "`" : "\\";
    if (end < 0) break;
    at = end + 1;
  }
  return "\\";
}
