import { afterEach, expect, test, vi } from "vitest";
import { VmsanError } from "../model/errors.ts";
import type { Context } from "./command.ts";
import { toEach } from "./each.ts";
import { Output } from "./output.ts";

afterEach(() => void vi.restoreAllMocks());

/** What a command prints to standard output and to standard error, and its status. */
async function told(json: boolean, code: string): Promise<[number, string, string]> {
  let [out, err] = ["", ""];
  vi.spyOn(process.stdout, "write").mockImplementation((text) => Boolean((out += String(text))));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => Boolean((err += String(text))));
  const context = { output: new Output({ json }), flags: {} } as unknown as Context<object>;
  const status = await toEach(context, ["a", "b", "c"], { all: "removed", one: "name" }, (name) =>
    name === "b"
      ? Promise.reject(new VmsanError({ code, message: "No b", why: "It is not there." }))
      : Promise.resolve(),
  );
  return [status, out, err];
}

test("one that fails keeps the others from nothing, and all are told", async () => {
  expect(await told(false, "ERR_NOT_FOUND")).toEqual([
    1,
    "a\nc\n",
    "error: No b [ERR_NOT_FOUND]\n  why: It is not there.\n",
  ]);
});

test("the JSON reply has what was done, and the first error beside the results", async () => {
  const [status, out, err] = await told(true, "ERR_VALIDATION_NAME");
  expect([status, err]).toEqual([2, ""]);
  const error = { code: "ERR_VALIDATION_NAME", message: "No b", why: "It is not there." };
  expect(JSON.parse(out)).toEqual({
    removed: ["a", "c"],
    results: [
      { name: "a", success: true },
      { name: "b", success: false, error },
      { name: "c", success: true },
    ],
    error,
  });
});
