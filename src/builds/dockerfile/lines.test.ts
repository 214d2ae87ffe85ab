/** A step's line is found without a parser, or none is named. */
import { describe, expect, test } from "vitest";
import { linesOf } from "./lines.ts";

const DOCKERFILE = `\uFEFF# a comment
FROM x AS one
run   echo a && \\
    # within
    echo b \\

    && false
RUN true
FROM one
RUN true
COPY <<EOF /a
RUN true
EOF
RUN <<END
exit 3
END
RUN echo a
RUN ${"x".repeat(400)}`;

describe("the line of a step", () => {
  test.each([
    ["STEP 1/2: FROM x AS one", [2]],
    ["[1/2] STEP 2/3: RUN   echo a &&     echo b     && false", []],
    ["[1/2] STEP 2/3: run   echo a &&     echo b     && false", [3]],
    // The last is a file's text: who reads it sees which is meant.
    ["STEP 3: RUN true", [8, 10, 12]],
    ["STEP 4/4: RUN <<END (exit 3...)", [14]],
    ["STEP 4/4: RUN echo a", [17]],
    [`STEP 4/4: RUN ${"x".repeat(280)}`, [18]],
    ["STEP 4/4: RUN echo", []],
    ["", []],
  ])("%s", (step, wanted) => {
    expect(linesOf(DOCKERFILE, step)).toEqual(wanted);
  });

  test("with another escape, and lines ended as on Windows", () => {
    expect(linesOf("# escape=`\r\nFROM x\r\nRUN a`\r\nb\r\n", "STEP 2/2: RUN ab")).toEqual([3]);
  });
});
