import { expect, test } from "vitest";
import { createRequest } from "../client/options.ts";
import { parseCreateRequest, parseUpdateRequest } from "./api.ts";

/** A request with these, as the daemon gets it. */
function asked(changes: object): unknown {
  const request = createRequest({ runtime: "base" });
  return { ...(JSON.parse(JSON.stringify(request)) as object), ...changes };
}

test("what one VM says of itself is bounded: all VMs of a host are listed in one reply", () => {
  const value = "x".repeat(120_000);
  const env = Array.from({ length: 3 }, (_, i) => `V${i}=${value}`);
  expect(() => parseCreateRequest(asked({ env: env.slice(1) }))).not.toThrow();
  expect(() => parseCreateRequest(asked({ env }))).toThrow();
  // Counted as the reply has it: three bytes a character, or six.
  for (const long of ["語", "\u0001"]) {
    expect(() => parseCreateRequest(asked({ env: [`V=${long.repeat(100_000)}`] }))).toThrow();
  }
  const labels = Object.fromEntries(
    Array.from({ length: 70 }, (_, i) => [`l${i}`, "x".repeat(4000)]),
  );
  expect(() => parseCreateRequest(asked({ labels: { l0: labels["l0"] } }))).not.toThrow();
  expect(() => parseCreateRequest(asked({ labels }))).toThrow();
  expect(() => parseUpdateRequest({ labels })).toThrow();
});
