/** The pure parts: references, sources, platforms, proxies, HTTP heads and chunks. */
import { expect, test } from "vitest";
import { array, assert, integer, property, string } from "fast-check";
import { parseChallenges } from "./registry/authenticate.ts";
import { formatImageSource, parseImageSource } from "./source.ts";
import { formatReference, parseReference } from "./reference.ts";
import { parsePlatform, platformScore } from "./documents/platform.ts";
import { parseRegistry } from "./registry/login.ts";
import { proxyFor } from "./http/proxy.ts";
import { retryAfter, safeUrl } from "./http/failure.ts";
import { ChunkedDecoder, encodeRequest, parseHead } from "./http/wire.ts";

const HEX = "ab".repeat(32);

test.each([
  ["node", "docker.io/library/node:latest"],
  ["node:22", "docker.io/library/node:22"],
  ["a/b", "docker.io/a/b:latest"],
  ["index.docker.io/a/b", "docker.io/a/b:latest"],
  ["docker.io/node", "docker.io/library/node:latest"],
  ["localhost/a", "localhost/a:latest"],
  ["localhost:5000/a/b/c:x_Y.z-1", "localhost:5000/a/b/c:x_Y.z-1"],
  ["[::1]:5000/a", "[::1]:5000/a:latest"],
  ["ghcr.io/a/b__c/d-e.f", "ghcr.io/a/b__c/d-e.f:latest"],
  ["Reg.Example/a", "Reg.Example/a:latest"],
  [`node@sha256:${HEX}`, `docker.io/library/node@sha256:${HEX}`],
  [`host:1/a:t@sha256:${HEX}`, `host:1/a:t@sha256:${HEX}`],
])("reference %s", (text, full) => {
  expect(formatReference(parseReference(text))).toBe(full);
  expect(formatReference(parseReference(full))).toBe(full);
});

test.each([
  "",
  "A",
  "a:",
  ":a",
  "a/",
  "/a",
  "a//b",
  "a:t/",
  "-a",
  "a-",
  "a..b",
  "a___b",
  "a:.t",
  "a b",
  "a\n",
  "x:$(id)",
  "a@sha256:12",
  `a@sha512:${HEX}`,
  `a@sha256:${HEX.toUpperCase()}`,
  "host:99999/a",
  "ho_st.x/a",
  HEX,
  `a${"b".repeat(300)}`,
  "https://ghcr.io/a/b",
  "a?x",
  "../a",
  "a/../b",
  "docker://",
  "oci:",
  "rootfs:",
  "oci:dir:bad tag",
  "docker-daemon:",
  "a:b:c",
])("no image: %j", (text) => {
  expect(() => parseImageSource(text, { cwd: "/x" })).toThrow(
    expect.objectContaining({
      code: "ERR_VALIDATION_IMAGE_REF",
      fix: expect.any(String) as string,
    }) as Error,
  );
});

test("sources", () => {
  const at = { cwd: "/home/u", runtimes: ["base"] };
  expect(parseImageSource("oci:dir", at)).toEqual({ kind: "oci", path: "/home/u/dir" });
  expect(parseImageSource("oci:/d:docker.io/a/b:1", at)).toEqual({
    kind: "oci",
    path: "/d",
    tag: "docker.io/a/b:1",
  });
  expect(parseImageSource("oci-archive:f.tar:t", at)).toEqual({
    kind: "oci-archive",
    path: "/home/u/f.tar",
    tag: "t",
  });
  expect(parseImageSource("docker-archive:../f.tar", at)).toEqual({
    kind: "docker-archive",
    path: "/home/f.tar",
  });
  expect(parseImageSource("rootfs:/a:b", at)).toEqual({ kind: "rootfs", path: "/a:b" });
  expect(parseImageSource("docker-daemon:a:1", at)).toEqual({ kind: "docker-daemon", name: "a:1" });
  expect(parseImageSource("base", at)).toEqual({ kind: "runtime", name: "base" });
  expect(parseImageSource("base").kind).toBe("registry");
  expect(parseImageSource("docker://a").kind).toBe("registry");
  for (const text of [
    "oci:/d:t",
    "rootfs:/a",
    "docker.io/library/a:1",
    "base",
    "docker-daemon:a:1",
  ]) {
    expect(formatImageSource(parseImageSource(text, at))).toBe(text);
  }
});

test("any text either fails with the code or spells out to itself", () => {
  assert(
    property(string({ unit: "binary-ascii" }), (text) => {
      try {
        const full = formatReference(parseReference(text));
        return formatReference(parseReference(full)) === full;
      } catch (error) {
        return (error as { code?: string }).code === "ERR_VALIDATION_IMAGE_REF";
      }
    }),
  );
});

test("platforms and variants", () => {
  const arm = parsePlatform("linux/arm/v7");
  const score = (variant?: string): number =>
    platformScore(arm, {
      os: "linux",
      architecture: "arm",
      ...(variant === undefined ? {} : { variant }),
    });
  expect(score("v7")).toBeGreaterThan(score("v6"));
  expect(score("v6")).toBeGreaterThan(score("v5"));
  expect(score("v8")).toBe(0);
  expect(score()).toBe(score("v7"));
  expect(parsePlatform("x86_64")).toEqual({ os: "linux", architecture: "amd64" });
  expect(() => parsePlatform("linux/a/b/c")).toThrow();
});

test.each([
  ["https://a.example/", "", "http://p:1/"],
  ["http://a.example/", "", "http://q/"],
  ["https://localhost/", "", undefined],
  ["https://127.0.0.1:5000/", "", undefined],
  ["https://[::1]/", "", undefined],
  ["https://127.evil.example/", "", "http://p:1/"],
  ["https://a.example/", "*", undefined],
  ["https://a.example/", "b.example, example", undefined],
  ["https://a.example/", ".example", undefined],
  ["https://aexample/", "example", "http://p:1/"],
  ["https://a.example:444/", "a.example:443", "http://p:1/"],
  ["https://a.example/", "a.example:443", undefined],
  ["https://10.1.2.3/", "10.0.0.0/8", undefined],
  ["https://11.1.2.3/", "10.0.0.0/8", "http://p:1/"],
  ["https://11.1.2.3/", "10.0.0.0/99,11.1.2.3", undefined],
])("proxy for %s with NO_PROXY=%j", (url, exceptions, proxy) => {
  const env = { HTTPS_PROXY: "p:1", http_proxy: "http://q", NO_PROXY: exceptions };
  expect(proxyFor(new URL(url), env)?.href).toBe(proxy);
});

test("challenges", () => {
  const header =
    'Basic realm="a, b", Bearer realm="https://t/x?y",service=reg,scope="repository:a:pull,push"';
  const [basic, bearer] = parseChallenges(header);
  expect(basic?.parameters.get("realm")).toBe("a, b");
  expect(Object.fromEntries(bearer?.parameters ?? [])).toEqual({
    realm: "https://t/x?y",
    service: "reg",
    scope: "repository:a:pull,push",
  });
  expect(parseChallenges("")).toEqual([]);
  assert(property(string(), (text) => Array.isArray(parseChallenges(text))));
});

test("heads of answers", () => {
  const head = (text: string, method = "GET") => parseHead(text.replaceAll("\n", "\r\n"), method);
  expect(head("HTTP/1.1 200 OK\nContent-Length: 5\nA: 1\na: 2")).toMatchObject({
    status: 200,
    headers: { a: "1, 2" },
    framing: { kind: "length", size: 5 },
    keepAlive: true,
  });
  expect(head("HTTP/1.1 200 OK\nTransfer-Encoding: chunked").framing.kind).toBe("chunked");
  expect(head("HTTP/1.1 200 OK").framing.kind).toBe("close");
  const both = head("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked");
  expect(both).toMatchObject({ framing: { kind: "chunked" }, keepAlive: false });
  expect(head("HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: identity").framing).toEqual({
    kind: "length",
    size: 5,
  });
  expect(head("HTTP/1.1 204 x").framing).toEqual({ kind: "length", size: 0 });
  expect(head("HTTP/1.1 200 OK\nContent-Length: 5", "HEAD").framing).toEqual({
    kind: "length",
    size: 0,
  });
  expect(head("HTTP/1.0 200 OK\nContent-Length: 5").keepAlive).toBe(false);
  expect(head("HTTP/1.1 200 OK\nContent-Length: 5\nConnection: Close").keepAlive).toBe(false);
  for (const bad of [
    "HTTP/2 200",
    "200 OK",
    "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6",
    "HTTP/1.1 200 OK\nContent-Length: -5",
    "HTTP/1.1 200 OK\nTransfer-Encoding: gzip",
    "HTTP/1.1 200 OK\nA b",
    "HTTP/1.1 200 OK\nContent-Length: 5\nTransfer-Encoding: chunked, chunked",
  ]) {
    expect(() => head(bad), bad).toThrow();
  }
  expect(() => encodeRequest("GET", "/", { a: "b\r\nc: d" })).toThrow();
});

test("chunks, cut anywhere", () => {
  const wire = Buffer.from(
    "5;x=y\r\nhello\r\n1\r\n \r\n00A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
  );
  assert(
    property(array(integer({ min: 1, max: 9 })), (sizes) => {
      const decoder = new ChunkedDecoder();
      let out = "";
      let at = 0;
      for (const size of [...sizes, wire.length]) {
        for (const part of decoder.push(wire.subarray(at, at + size)))
          out += Buffer.from(part).toString();
        at += size;
      }
      return decoder.done && out === "hello 0123456789";
    }),
  );
  for (const bad of ["x\r\n", "5\r\nhelloX\r\n", "1".repeat(9000)]) {
    expect(() => [...new ChunkedDecoder().push(Buffer.from(bad))], bad).toThrow();
  }
});

test("small things", () => {
  expect(retryAfter("3")).toBe(3000);
  expect(retryAfter(new Date(Date.now() + 60_000).toUTCString())).toBeGreaterThan(50_000);
  expect(retryAfter("soon")).toBeUndefined();
  expect(safeUrl(new URL("https://u:p@h/x?sig=1"))).toBe("https://h/x");
  expect(parseRegistry("")).toBe("docker.io");
  expect(parseRegistry("https://index.docker.io/v1/")).toBe("docker.io");
  expect(parseRegistry("https://reg.lan:5000/")).toBe("reg.lan:5000");
  expect(() => parseRegistry("reg.lan/x")).toThrow();
});
