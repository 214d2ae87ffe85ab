/** Credential files as Docker and podman write them, helpers, and what never leaks. */
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeEach, expect, test } from "vitest";
import { eraseCredentials, findCredentials, storeCredentials } from "./credentials.ts";

const root = mkdtempSync(join(tmpdir(), "vmsan-cred-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));

let home: string;
let env: NodeJS.ProcessEnv;
beforeEach(() => {
  home = mkdtempSync(join(root, "home-"));
  mkdirSync(join(home, ".docker"));
  env = { HOME: home, PATH: `${home}/bin:${process.env["PATH"] ?? ""}` };
});

const config = (): string => join(home, ".docker/config.json");
const write = (value: unknown): void => writeFileSync(config(), JSON.stringify(value));
const auth = (pair: string): { auth: string } => ({ auth: Buffer.from(pair).toString("base64") });
const basic = (username: string, password: string) => ({ kind: "basic", username, password });

/** A helper that keeps what it is told in a file and answers from it. */
function makeHelper(name: string, script: string): void {
  mkdirSync(join(home, "bin"), { recursive: true });
  const path = join(home, "bin", `docker-credential-${name}`);
  writeFileSync(path, `#!/bin/sh\ncat > "${home}/$1.in"\n${script}\n`);
  chmodSync(path, 0o755);
}

test("auths by every spelling, the most special first", async () => {
  write({
    auths: {
      "https://index.docker.io/v1/": auth("hub:a:b"),
      "https://reg.lan:5000/v2/": auth("r:1"),
      "ghcr.io": auth("g:1"),
      "ghcr.io/owner": auth("o:1"),
      "ghcr.io/owner/repo": auth("p:1"),
      "empty.lan": {},
      "token.lan": { ...auth("x:y"), identitytoken: "tok" },
    },
  });
  expect(await findCredentials("docker.io", "library/node", env)).toEqual(basic("hub", "a:b"));
  expect(await findCredentials("reg.lan:5000", "", env)).toEqual(basic("r", "1"));
  expect(await findCredentials("ghcr.io", "other/x", env)).toEqual(basic("g", "1"));
  expect(await findCredentials("ghcr.io", "owner/x", env)).toEqual(basic("o", "1"));
  expect(await findCredentials("ghcr.io", "owner/repo", env)).toEqual(basic("p", "1"));
  expect(await findCredentials("empty.lan", "", env)).toBeUndefined();
  expect(await findCredentials("token.lan", "", env)).toEqual({ kind: "identity", token: "tok" });
  expect(await findCredentials("none.lan", "", env)).toBeUndefined();
});

test("REGISTRY_AUTH_FILE alone, then podman's places", async () => {
  const other = join(home, "auth.json");
  writeFileSync(other, JSON.stringify({ auths: { "a.lan": auth("u:other") } }));
  mkdirSync(join(home, "run/containers"), { recursive: true });
  writeFileSync(
    join(home, "run/containers/auth.json"),
    JSON.stringify({ auths: { "b.lan": auth("u:run") } }),
  );
  write({ auths: { "b.lan": {} } });
  const all = { ...env, XDG_RUNTIME_DIR: join(home, "run") };
  expect(await findCredentials("b.lan", "", all)).toEqual(basic("u", "run"));
  const named = { ...all, REGISTRY_AUTH_FILE: other };
  expect(await findCredentials("a.lan", "", named)).toEqual(basic("u", "other"));
  expect(await findCredentials("b.lan", "", named)).toBeUndefined();
});

test("helpers: for one registry, for all; not found is no error, a broken one is", async () => {
  makeHelper("one", `echo '{"Username":"h","Secret":"s"}'`);
  makeHelper("none", `echo 'credentials not found in native keychain'; exit 1`);
  makeHelper("bad", `echo 'secret-on-stdout'; exit 1`);
  write({
    credHelpers: {
      "a.lan": "one",
      "b.lan": "none",
      "c.lan": "bad",
      "d.lan": "../x",
      "e.lan": "missing",
    },
  });
  expect(await findCredentials("a.lan", "", env)).toEqual(basic("h", "s"));
  expect(readFileSync(join(home, "get.in"), "utf8").trim()).toBe("a.lan");
  expect(await findCredentials("b.lan", "", env)).toBeUndefined();
  for (const registry of ["c.lan", "d.lan", "e.lan"]) {
    const error: unknown = await findCredentials(registry, "", env).catch(
      (reason: unknown) => reason,
    );
    expect(error).toMatchObject({ code: "ERR_IMAGE_AUTH_HELPER" });
    expect(JSON.stringify(error)).not.toContain("secret-on-stdout");
  }
  makeHelper("all", `echo '{"Username":"<token>","Secret":"idt"}'`);
  write({ credsStore: "all" });
  expect(await findCredentials("x.lan", "", env)).toEqual({ kind: "identity", token: "idt" });
});

test("login keeps unknown settings and links, mode 0600; logout removes every spelling", async () => {
  const real = join(home, "real.json");
  writeFileSync(
    real,
    JSON.stringify({ psFormat: "x", auths: { "https://a.lan/v1/": auth("old:1") } }),
  );
  symlinkSync(real, config());
  const account = { username: "u", password: "p:w" };
  await Promise.all(
    ["a.lan", "b.lan", "docker.io"].map(async (name) => storeCredentials(name, account, env)),
  );
  expect(lstatSync(config()).isSymbolicLink()).toBe(true);
  expect(statSync(real).mode & 0o777).toBe(0o600);
  const file = JSON.parse(readFileSync(real, "utf8")) as {
    psFormat: string;
    auths: Record<string, unknown>;
  };
  expect(file.psFormat).toBe("x");
  expect(Object.keys(file.auths)).toContain("https://index.docker.io/v1/");
  expect(await findCredentials("b.lan", "", env)).toEqual(basic("u", "p:w"));
  expect(await eraseCredentials("a.lan", env)).toBe(true);
  expect(await findCredentials("a.lan", "", env)).toBeUndefined();
  expect(await findCredentials("docker.io", "library/x", env)).toEqual(basic("u", "p:w"));
});

test("login through a helper leaves no secret in the file", async () => {
  makeHelper("keys", "exit 0");
  write({ credsStore: "keys" });
  await storeCredentials("a.lan", { username: "u", password: "geheim" }, env);
  expect(readFileSync(config(), "utf8")).not.toContain("geheim");
  expect(JSON.parse(readFileSync(join(home, "store.in"), "utf8"))).toEqual({
    ServerURL: "a.lan",
    Username: "u",
    Secret: "geheim",
  });
  await eraseCredentials("a.lan", env);
  expect(readFileSync(join(home, "erase.in"), "utf8").trim()).toBe("a.lan");
});

test("a broken file is named, its content is not", async () => {
  writeFileSync(config(), '{"auths": {"a": {"auth": "c2VjcmV0"');
  const error: unknown = await findCredentials("a.lan", "", env).catch((reason: unknown) => reason);
  expect(error).toMatchObject({ code: "ERR_IMAGE_AUTH_FILE" });
  expect(JSON.stringify(error)).not.toContain("c2VjcmV0");
});
