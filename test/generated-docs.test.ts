/** What is made from the command table and the routes is what lies in docs/. */
import { expect, test } from "vitest";
import { outdatedDocuments } from "../scripts/generate-docs.ts";

test("docs/cli.md, the manual page, the completion scripts and docs/openapi.json are current (npm run docs)", async () => {
  expect(await outdatedDocuments()).toEqual([]);
});
