import { expect, test } from "vitest";
import { VmsanError } from "../../../model/errors.ts";
import { failureOf } from "./build.ts";

const failed = (step: string): string => {
  const error = new VmsanError({
    code: "ERR_BUILD_FAILED",
    message: `The build failed at line 2, STEP 2/3: ${step}`,
    why: "building at STEP: exit status 7",
  });
  return JSON.stringify(failureOf(error));
};

test("a command that fails is told in Docker's words, and in ours", () => {
  const said = failed("RUN make all");
  expect(said).toContain("The command '/bin/sh -c make all' returned a non-zero code: 7");
  expect(said).toContain("The build failed at line 2");
  expect(failed('RUN ["make"]')).not.toContain("The command");
  expect(failed("COPY a b")).not.toContain("The command");
});
