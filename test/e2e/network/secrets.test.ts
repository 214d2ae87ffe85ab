/**
 * Secrets with a real guest and its usual clients, in namespaces of its own (test/network/secrets-guest.ts):
 * the server is told the value, and the guest never has it.
 */
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { inWorld, whyNot } from "../../network/launch.ts";
import { root, vmsanBin } from "../support.ts";
import { guestWorld } from "./world.ts";

const reason = whyNot();
if (reason !== undefined)
  process.stderr.write(`skipped: test/e2e/network/secrets.test.ts ${reason}\n`);

/** The key, and as a URL has it. */
const value = "tok_SuperSecretValue/42";
const inUrl = encodeURIComponent(value);

/** A program of Node.js's, in the guest by a shared directory. */
const script = `fetch("https://api.test/node", { headers: { "x-key": process.env.TOKEN } }).then((r) => r.text()).then(console.log)`;

/** By name; each prints what the guest got. */
const commands = [
  ["header", 'echo "$TOKEN"; curl -sS -H "Authorization: Bearer $TOKEN" https://api.test/header'],
  [
    "curl",
    'curl -sS -u "a:$TOKEN" https://api.test/basic "https://api.test/query?k=$TOKEN" && curl -sS -d "k=$TOKEN" https://api.test/body',
  ],
  // As a program has it that is started with nothing: the system's own store.
  ["system", 'env -i curl -sS -H "X-Key: $TOKEN" https://api.test/system'],
  [
    "git",
    'cd && git clone -q "https://a:$TOKEN@api.test/repository" r && git -C r log --format=%s',
  ],
  [
    "python",
    `python3 -c 'import os, urllib.request as u; print(u.urlopen(u.Request("https://api.test/python", headers={"X-Key": os.environ["TOKEN"]})).read().decode())'`,
  ],
  ["node", `/opt/node/node -e '${script}'`],
  // What the server that it is moved to has is its own certificate.
  ["moved", 'curl -sSkL -H "X-Key: $TOKEN" "https://api.test/moved$TOKEN"'],
  ["unencrypted", 'curl -sS -H "X-Key: $TOKEN" http://api.test/unencrypted'],
  ["everywhere", "env; grep -rI tok_Super /etc /run /home 2>/dev/null; cat /proc/*/environ"],
] as const;

const place = guestWorld(reason);

describe.skipIf(reason !== undefined)("secrets of a real guest", () => {
  test("clients reach the domain with the value, and nothing in the guest has it", async () => {
    const node = join(root, "node_modules/node/bin");
    const create = ["--runtime", "e2b", "--memory", "768", "-v", `${node}:/opt/node:ro`];
    const job = { vmsan: vmsanBin, vmsanDir: place.dir, create, commands };
    const lines = await inWorld(place.bench, "secrets-guest.ts", job, { TOKEN: value });
    const stage = (name: string): Record<string, unknown> =>
      lines.find((line) => line["stage"] === name) ?? {};
    const got = (name: string): string =>
      String(lines.find((line) => line["command"] === name)?.["got"]);
    const asked = lines
      .map((line) => line["seen"] as { host: string; url: string; knows: boolean } | undefined)
      .filter((seen) => seen !== undefined);
    /** Whether each request to a place had the value; none is none. */
    const knew = (place: string): boolean[] =>
      asked.filter(({ url }) => url.startsWith(place)).map(({ knows }) => knows);

    const placeholder = /^(vmsanSecret[0-9a-f]{40})$/m.exec(got("header"))?.[1] ?? "none";
    // The server sends back what it was sent, and what it knows on top.
    for (const name of ["header", "curl", "system", "python", "node", "next daemon"]) {
      expect(got(name), name).toMatch(new RegExp(`known: .*${placeholder}`));
    }
    expect(knew("/header")).toEqual([true, true]);
    for (const place of ["/basic", "/query", "/body", "/system", "/python", "/node"]) {
      expect(knew(place), place).toEqual([true]);
    }
    expect(got("git").trim()).toBe("the first");
    expect(knew("/repository/HEAD")).toEqual([true]);
    // Elsewhere the placeholder is what is sent.
    expect(got("moved")).toContain(`/?${placeholder}`);
    expect(asked.filter(({ host, knows }) => host !== "api.test" && knows)).toEqual([]);
    expect(knew("/unencrypted")).toEqual([false]);
    expect(got("unencrypted")).toContain(placeholder);
    // A fork has no secret, and what it asks passes as it is.
    expect(got("fork")).not.toContain("vmsanSecret");
    expect(got("fork")).not.toContain("known:");

    for (const line of lines) {
      if ("seen" in line) continue;
      const text = JSON.stringify(line);
      for (const form of [value, inUrl])
        expect(text, Object.values(line).join()).not.toContain(form);
    }
    expect(stage("files")["files"]).toEqual([
      { path: expect.stringMatching(/\/vms\/vm-[0-9a-f]{8}\/secrets\.json$/), mode: "600" },
    ]);
    expect(stage("files, removed")["files"]).toEqual([]);
    expect(got("everywhere")).toContain("SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt");
  }, 600_000);
});
