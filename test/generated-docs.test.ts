/** What is made from the command table is what lies in docs/. */
import { expect, test } from "vitest";
import { outdatedDocuments } from "../scripts/generate-docs.ts";

test("docs/cli.md, the manual page and the completion scripts are current (npm run docs)", async () => {
  expect(await outdatedDocuments()).toEqual([]);
});
