import { expect, test } from "vitest";
import { VmsanError } from "../../model/errors.ts";
import { sentence } from "./errors.ts";

test("what failed, why, and what to do read as sentences, however each of them ends", () => {
  const said = (message: string, why?: string, fix?: string): string =>
    sentence(new VmsanError({ code: "ERR_X", message, ...(why && { why }), ...(fix && { fix }) }));
  expect(said("The directory cannot be used.", "no such file or directory", "Make it.")).toBe(
    "The directory cannot be used: no such file or directory. Make it.",
  );
  expect(said("Cannot reach it", "It does not answer.", "Start it.")).toBe(
    "Cannot reach it: It does not answer. Start it.",
  );
  expect(said("It is gone")).toBe("It is gone");
  expect(said("No.", "gone")).toBe("No: gone");
});
