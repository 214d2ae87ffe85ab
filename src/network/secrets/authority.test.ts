import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporary } from "../../../test/fixtures/ladder.ts";
import { Certificates } from "./authority.ts";

const place = temporary();

test("certificates of one VM are made one after another, whatever names it asks for", async () => {
  const helper = join(place.path, "helper");
  const log = join(place.path, "log");
  writeFileSync(
    helper,
    `#!/bin/sh\necho begin >> ${log}\nsleep 0.05\necho end >> ${log}\nexit 1\n`,
  );
  chmodSync(helper, 0o755);
  const certificates = new Certificates(helper, { certificate: "", key: "" });
  const names = ["a", "b", "c"].map(async (name) => await certificates.of(`${name}.test`));
  for (const { status } of await Promise.allSettled(names)) expect(status).toBe("rejected");
  expect(readFileSync(log, "utf8")).toBe("begin\nend\n".repeat(3));
});
