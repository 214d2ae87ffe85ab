import { spawnSync } from "node:child_process";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { expect, test } from "vitest";
import { renewalOf, selfSigned } from "./certificates.ts";
import { newKeyAndRequest } from "./csr.ts";

/** What OpenSSL reads in a request, its signature checked. */
function read(request: string): string {
  const done = spawnSync("openssl", ["req", "-noout", "-text", "-verify"], {
    input: request,
    encoding: "utf8",
  });
  return `${done.status}\n${done.stdout}${done.stderr}`;
}

test("a request is what OpenSSL understands, and signed with its key", () => {
  const { request } = newKeyAndRequest({
    commonName: "system:node:host-1",
    organization: "system:nodes",
  });
  const text = read(request);
  expect(text).toContain("0\n");
  expect(text).toMatch(/verify OK/i);
  expect(text).toMatch(/O ?= ?system:nodes, ?CN ?= ?system:node:host-1/);
  const [head = "", ...lines] = request.split("\n");
  const damaged = [head, ...lines.slice(0, 2), "AAAA".repeat(16), ...lines.slice(3)].join("\n");
  expect(read(damaged)).not.toMatch(/verify OK/i);
});

test("names and addresses of a server are in it, long ones too", () => {
  const long = `${"a".repeat(60)}.${"b".repeat(60)}.example`;
  const hosts = ["host-1", long, "10.1.2.3", "fd00::1:2", "2001:db8:0:0:1:0:0:1"];
  const text = read(newKeyAndRequest({ commonName: "x", hosts }).request);
  expect(text).toContain("DNS:host-1");
  expect(text).toContain(`DNS:${long}`);
  expect(text).toContain("IP Address:10.1.2.3");
  expect(text).toContain("IP Address:FD00:0:0:0:0:0:1:2");
  expect(text).toContain("IP Address:2001:DB8:0:0:1:0:0:1");
});

test("a certificate of one's own is one that OpenSSL and Node.js take", () => {
  const { cert, key } = selfSigned({ commonName: "host-1", hosts: ["host-1", "10.1.2.3"] });
  const read = new X509Certificate(cert);
  expect(read.checkHost("host-1")).toBe("host-1");
  expect(read.checkIP("10.1.2.3")).toBe("10.1.2.3");
  expect(read.checkPrivateKey(createPrivateKey(key))).toBe(true);
  expect(read.verify(read.publicKey)).toBe(true);
  expect(renewalOf(cert)).toBeGreaterThan(Date.now());
  const shown = spawnSync("openssl", ["x509", "-noout", "-text"], {
    input: cert,
    encoding: "utf8",
  });
  expect(shown.stdout).toContain("DNS:host-1, IP Address:10.1.2.3");
});
