/** `--link` is taken out of instructions, and of nothing else. */
import { expect, test } from "vitest";
import { withoutLinks } from "./links.ts";

test.each([
  ["FROM x\nCOPY --link a b\n", "FROM x\nCOPY a b\n"],
  ["copy --from=s --link --chown=1:2 a b", "copy --from=s --chown=1:2 a b"],
  ["ADD --link=true a b", "ADD a b"],
  ["ONBUILD COPY --link a b", "ONBUILD COPY a b"],
  ["  COPY\t--link\ta b", "  COPY\ta b"],
  ["\uFEFFCOPY --link a b", "\uFEFFCOPY a b"],
  // Lines keep their numbers.
  ["COPY \\\n  --link \\\n  a b\nRUN x", "COPY\\\n \\\n  a b\nRUN x"],
  ["# escape=`\nCOPY --link `\n  a b", "# escape=`\nCOPY `\n  a b"],
  ["COPY --chmod=755 \\\n# said\n\n  --link a b", "COPY --chmod=755\\\n\\\n\\\n a b"],
  [
    "RUN cat <<EOF >/x\nCOPY --link a b\nEOF\nCOPY --link a b",
    "RUN cat <<EOF >/x\nCOPY --link a b\nEOF\nCOPY a b",
  ],
  [
    "COPY --link <<-'ONE' <<TWO /d/\n\tCOPY --link\n\tONE\nCOPY --link\nTWO\n",
    "COPY <<-'ONE' <<TWO /d/\n\tCOPY --link\n\tONE\nCOPY --link\nTWO\n",
  ],
  ["COPY --link a b\r\nRUN x\r\n", "COPY a b\r\nRUN x\r\n"],
  ["RUN cat <<<x $((1<<2))\nCOPY --link a b\n", "RUN cat <<<x $((1<<2))\nCOPY a b\n"],
])("%j becomes %j", (given, wanted) => {
  expect(withoutLinks(given)).toBe(wanted);
  expect(wanted.split("\n")).toHaveLength(given.split("\n").length);
});

test.each([
  "FROM x\nCOPY a b",
  "RUN ld --link x",
  "# COPY --link a b",
  "RUN a \\\nCOPY --link a b",
  "COPY a --link",
  "COPY --link=false a b",
  "COPY --linked a b",
  "RUN <<EOF\nCOPY --link a b\nEOF",
])("%j stays", (given) => {
  expect(withoutLinks(given)).toBeUndefined();
});

test("a text made to be slow takes no time", () => {
  const before = performance.now();
  withoutLinks(`COPY ${"--a ".repeat(50_000)}--link x`);
  withoutLinks(`COPY ${"\\\n".repeat(50_000)}--link x`);
  withoutLinks(`COPY --link ${"<<a ".repeat(50_000)}`);
  expect(performance.now() - before).toBeLessThan(20_000);
});
