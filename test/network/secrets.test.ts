/**
 * A guest's stand-in behind the real network of a VM with a secret: everything that a hostile program may try to have the value or to
 * send it elsewhere, and package managers and clients that are to reach its domain with it.
 */
import { spawnSync } from "node:child_process";
import { dirname } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { npmPackages } from "../fixtures/kept.ts";
import { pythonWith } from "../fixtures/venv.ts";
import { buildBench, inWorld, whyNot, type Bench } from "./launch.ts";

const reason = whyNot();
if (reason !== undefined) process.stderr.write(`skipped: test/network/secrets.test.ts ${reason}\n`);

/** The key, and forms in which it could be read. */
const value = "tok_SuperSecretValue/42";
const forms = [
  value,
  encodeURIComponent(value),
  Buffer.from(value).toString("hex"),
  Buffer.from(`user:${value}`).toString("base64"),
  "tok_Super",
];

const url = (name: string): string => `https://api.test/${name}`;
/** By name; each asks for the path of that name, and prints the answer. */
const asking: Record<string, string> = {
  curl: `curl -sS -H "X-Key: $TOKEN" ${url("curl")}`,
  "curl-alone": `env -i "$(command -v curl)" -sS -H "X-Key: $TOKEN" ${url("curl-alone")}`,
  "curl-basic": `curl -sS -u "a:$TOKEN" ${url("curl-basic")}`,
  "curl-form": `curl -sS --data-urlencode "k=$TOKEN" ${url("curl-form")}`,
  wget: `wget -qO- --header "X-Key: $TOKEN" ${url("wget")}`,
  python: `python3 -c 'import os, urllib.request as u; print(u.urlopen(u.Request("${url("python")}", headers={"X-Key": os.environ["TOKEN"]})).read().decode())'`,
  node: `node -e 'fetch("${url("node")}", { headers: { "x-key": process.env.TOKEN } }).then((r) => r.text()).then(console.log)'`,
  go: `"$NETTOOL" get ${url("go")}`,
};

/** The same by clients of Python and Node.js that bring more than their language has. @param python with them */
function askingWith(python: string, clients: string): Record<string, string> {
  const by = (name: string, words: string): [string, string] => [
    name,
    `"${python}" -c 'import os; key = {"X-Key": os.environ["TOKEN"]}; url = "${url(name)}"\n${words}'`,
  ];
  const node = (name: string, words: string): [string, string] => [
    name,
    `cd "${clients}" && node --input-type=module -e 'const headers = { "x-key": process.env.TOKEN }, url = "${url(name)}"; ${words}'`,
  ];
  const session = [
    "import aiohttp, asyncio",
    "async def main():",
    "    async with aiohttp.ClientSession(trust_env=True) as session:",
    "        print(await (await session.get(url, headers=key)).text())",
    "asyncio.run(main())",
  ];
  return Object.fromEntries([
    by("requests", "import requests; print(requests.get(url, headers=key).text)"),
    by("httpx", "import httpx; print(httpx.get(url, headers=key).text)"),
    by("urllib3", `import urllib3; print(urllib3.request("GET", url, headers=key).data.decode())`),
    by("aiohttp", session.join("\n")),
    node(
      "undici",
      `import { request } from "undici"; console.log(await (await request(url, { headers })).body.text())`,
    ),
    node(
      "axios",
      `import axios from "axios"; console.log((await axios.get(url, { headers })).data)`,
    ),
    node("got", `import got from "got"; console.log(await got(url, { headers }).text())`),
  ]);
}

/** Package managers and git, and what they bring. */
const fetching: Record<string, [script: string, said: string]> = {
  npm: [
    `mkdir n && cd n && echo "//api.test/npm/:_authToken=$TOKEN" >.npmrc && npm install --no-audit --no-fund --registry https://api.test/npm/ sample >&2 && npx sample`,
    "a sample of npm",
  ],
  pip: [
    `python3 -m pip install --quiet --no-cache-dir --disable-pip-version-check --target p --index-url "https://a:$TOKEN@api.test/simple/" sample && PYTHONPATH=p python3 -m sample`,
    "a sample of Python",
  ],
  git: [
    `git clone -q "https://a:$TOKEN@api.test/repository" r && git -C r log --format=%s`,
    "the first",
  ],
};

/** More package managers. @param clients where those of npm are @param cargo the directory of Rust's programs */
function fetchingWith(clients: string, cargo: string): typeof fetching {
  const npmrc = `echo "registry=https://api.test/npm/\n//api.test/npm/:_authToken=$TOKEN" >.npmrc && echo '{"name":"a"}' >package.json`;
  const said = "a sample of npm";
  return {
    pnpm: [
      `mkdir pn && cd pn && ${npmrc} && node "${clients}/node_modules/pnpm/bin/pnpm.mjs" add sample >&2 && node node_modules/sample/sample.js`,
      said,
    ],
    yarn: [
      `mkdir y && cd y && ${npmrc} && echo "always-auth=true" >>.npmrc && node "${clients}/node_modules/yarn/bin/yarn.js" add --silent --cache-folder "$PWD/cache" sample >&2 && node node_modules/sample/sample.js`,
      said,
    ],
    "go get": [
      `mkdir g && cd g && export GOFLAGS=-modcacherw GONOSUMDB=* GOPROXY="https://a:$TOKEN@api.test/goproxy" && go mod init a >&2 && go get sample.test/sample && cat go.mod`,
      "sample.test/sample v1.0.0",
    ],
    ...(cargo === ""
      ? {}
      : {
          cargo: [
            `export PATH="${cargo}:$PATH" CARGO_REGISTRIES_MINE_INDEX=sparse+https://api.test/cargo/ CARGO_REGISTRIES_MINE_TOKEN="$TOKEN" CARGO_REGISTRY_GLOBAL_CREDENTIAL_PROVIDERS=cargo:token && cargo init --quiet --lib --vcs none --name a c >&2 && cd c && cargo add --quiet --registry mine sample >&2 && cargo fetch --quiet && cat Cargo.lock`,
            "sparse+https://api.test/cargo/",
          ],
        }),
  };
}

/** Where this host has Rust's programs, themselves and not rustup's in their place; empty: nowhere. */
function rustIn(): string {
  const asked = spawnSync("rustup", ["which", "cargo"], { encoding: "utf8" });
  const { status, stdout } =
    asked.status === 0 ? asked : spawnSync("which", ["cargo"], { encoding: "utf8" });
  return status === 0 ? dirname(stdout.trim()) : "";
}

/** What this host has: the tests install none of these. */
const has = (program: string): boolean => spawnSync(program, ["--version"]).status === 0;

/** What test/network/guest/attempts.py says of one. */
interface Attempt {
  attempt: string;
  knows: boolean;
  paths: string[];
  got: string;
}

let bench: Bench;
beforeAll(() => {
  if (reason === undefined) bench = buildBench();
});
afterAll(() => bench?.remove());

describe.skipIf(reason !== undefined)("a secret behind the real network", () => {
  test("clients reach the domain with the value; whatever is tried, nothing else has it", async () => {
    const attempts = new URL("guest/attempts.py", import.meta.url).pathname;
    const clients = await npmPackages("secret-clients");
    const python = await pythonWith("secret-clients-python");
    const asks = { ...asking, ...askingWith(python, clients) };
    const fetches = { ...fetching, ...fetchingWith(clients, rustIn()) };
    const scripts = Object.entries({
      ...asks,
      ...Object.fromEntries(Object.entries(fetches).map(([name, [script]]) => [name, script])),
    }).filter(([name]) => !["wget", "npm"].includes(name) || has(name));
    // Keys that lie about on this host are not the guest's.
    const tried = `python3 ${attempts} 'keys that lie about'`;
    const commands = [...scripts, ["attempts", tried]];
    const job = { packages: true, commands };
    const lines = await inWorld(bench, "secrets-standin.ts", job, { TOKEN: value });
    const got = new Map(
      lines
        .filter((line) => "command" in line)
        .map(({ command, got: text }) => [String(command), String(text)]),
    );
    const asked = lines
      .map((line) => line["seen"] as { host: string; url: string; knows: boolean } | undefined)
      .filter((seen) => seen !== undefined)
      // Without the value where a path has it.
      .map((seen) => ({
        ...seen,
        path: (seen.url.split("?")[0] ?? "").replace(forms[1] ?? "", ""),
      }));

    for (const name of Object.keys(asks).filter((one) => got.has(one))) {
      expect(got.get(name), name).toMatch(/known: [^]*vmsanSecret[0-9a-f]{40}/);
      expect(
        asked.find(({ path, knows }) => path === `/${name}` && knows),
        name,
      ).toBeDefined();
    }
    for (const [name, [, said]] of Object.entries(fetches)) {
      if (got.has(name)) expect(got.get(name), name).toContain(said);
    }
    const attempted = (got.get("attempts") ?? "")
      .split("\n")
      .filter((line) => line.startsWith("{"))
      .map((line) => JSON.parse(line) as Attempt);
    expect(attempted.length, got.get("attempts")).toBe(51);
    for (const { attempt, knows, paths, got: answer } of attempted) {
      const known = asked.filter(({ path, knows: told }) => told && paths.includes(path));
      expect(known.length > 0, `${attempt}: ${answer}`).toBe(knows);
      for (const form of forms) expect(answer, attempt).not.toContain(form);
    }
    expect(asked.filter(({ host, knows }) => host !== "api.test" && knows)).toEqual([]);
    for (const [name, text] of got) {
      for (const form of forms) expect(text, name).not.toContain(form);
    }
  });
});
