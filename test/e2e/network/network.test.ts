/**
 * Networks with real guests, through the command line, in namespaces of their own: the table of
 * attempts (see test/network/), published ports, the log, and the same for an ordinary user.
 * With VMSAN_TEST_SCALE above 1 every policy's column is run, not just the strictest.
 */
import { describe, expect, test } from "vitest";
import { hasTool } from "../../../src/network/host/realm.ts";
import { inWorld, whyNot } from "../../network/launch.ts";
import { order } from "../../network/table.ts";
import { preparedDir, root, vmsanBin } from "../support.ts";
import { guestWorld } from "./world.ts";

const reason = whyNot();
if (reason !== undefined)
  process.stderr.write(`skipped: test/e2e/network/network.test.ts ${reason}\n`);
const columns = Number(process.env["VMSAN_TEST_SCALE"] ?? "1") > 1 ? order : "FP";

const place = guestWorld(reason);

/** The one line of a stage. */
const stage = (lines: Record<string, unknown>[], name: string): Record<string, unknown> =>
  lines.find((line) => line["stage"] === name) ?? {};

describe.skipIf(reason !== undefined)("networks of real guests", () => {
  test("policies, log, ports and restarts through the command line", async () => {
    const job = { vmsan: vmsanBin, vmsanDir: place.dir, columns, container: true };
    const lines = await inWorld(place.bench, "real-guest.ts", job);
    const tried = lines.filter((line) => line["policy"] !== undefined);
    expect(tried.length).toBeGreaterThan(120 * (columns.length + 1));
    expect(tried.filter((line) => line["open"] !== line["expected"])).toEqual([]);
    expect(JSON.parse(String(stage(lines, "log")["got"]))).toMatchObject({
      verdict: "denied",
      name: "late.test",
    });
    expect(stage(lines, "published")["got"]).toMatch(/^open /);
    expect(stage(lines, "published, next daemon")["got"]).toMatch(/^open /);
    expect(stage(lines, "port taken")).toMatchObject({
      status: "running",
      networkReason: expect.stringContaining("8091"),
    });
    expect(stage(lines, "alive")["got"]).toBe("alive");
    expect(stage(lines, "left")).toMatchObject({
      before: "table inet vmsan",
      after: "",
      forwarding: "0",
    });
  }, 1_200_000);

  test.skipIf(!hasTool("pasta"))(
    "a VM of an ordinary user",
    async () => {
      const job = { checkout: root, vmsanDir: preparedDir };
      const lines = await inWorld(place.bench, "rootless-guest.ts", job);
      expect(stage(lines, "made")["view"]).toMatchObject({
        status: "running",
        guestNetwork: { ipv4: "198.19.0.2/30" },
        isolation: { networkNamespace: true },
      });
      expect(stage(lines, "made")["view"]).not.toHaveProperty("networkReason");
      expect(stage(lines, "allow-all")["got"]).toMatch(/open server=203\.0\.113\.10:9000/);
      expect(stage(lines, "name")["got"]).toContain("rcode=0 203.0.113.10");
      expect(stage(lines, "host")["got"]).toContain("closed");
      expect(stage(lines, "published")["got"]).toMatch(/^open /);
      expect(stage(lines, "deny-all")["got"]).toContain("closed");
      expect(stage(lines, "log")).toMatchObject({ denied: true, allowed: true });
      expect(stage(lines, "custom, next daemon")["got"]).toContain("open server=");
      expect(stage(lines, "left")).toMatchObject({ processes: [], network: [] });
    },
    400_000,
  );
});
