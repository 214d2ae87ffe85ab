/** A registry of npm, an index of Python's packages, a proxy of Go's modules and a registry of Rust's, as files: each with one package, `sample`. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const wheel = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as file:
    file.writestr("sample.py", "print('a sample of Python')\\n")
    file.writestr("sample-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: sample\\nVersion: 1.0\\n")
    file.writestr("sample-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: a\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    file.writestr("sample-1.0.dist-info/RECORD", "sample.py,,\\nsample-1.0.dist-info/METADATA,,\\nsample-1.0.dist-info/WHEEL,,\\nsample-1.0.dist-info/RECORD,,\\n")
`;

const module = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as file:
    file.writestr("sample.test/sample@v1.0.0/go.mod", "module sample.test/sample\\n")
    file.writestr("sample.test/sample@v1.0.0/sample.go", "package sample\\n")
`;

/** Write them below a directory: npm/, simple/, goproxy/, cargo/. Their addresses are of `https://api.test`. */
export function makePackages(dir: string): void {
  const put = (path: string, text: string): void => {
    mkdirSync(join(dir, path, ".."), { recursive: true });
    writeFileSync(join(dir, path), text);
  };
  const sample = { name: "sample", version: "1.0.0", bin: "sample.js" };
  put("tree/package/package.json", JSON.stringify(sample));
  put("tree/package/sample.js", "#!/usr/bin/env node\nconsole.log('a sample of npm');\n");
  mkdirSync(join(dir, "npm"));
  const archive = join(dir, "npm/sample-1.0.0.tgz");
  execFileSync("tar", ["-C", join(dir, "tree"), "-czf", archive, "package"]);
  const integrity = createHash("sha512").update(readFileSync(archive)).digest("base64");
  const tarball = "https://api.test/npm/sample-1.0.0.tgz";
  const version = { ...sample, dist: { tarball, integrity: `sha512-${integrity}` } };
  const tags = { latest: "1.0.0" };
  put(
    "npm/sample",
    JSON.stringify({ name: "sample", "dist-tags": tags, versions: { "1.0.0": version } }),
  );

  const file = "sample-1.0-py3-none-any.whl";
  put("simple/sample/index.html", `<a href="/simple/files/${file}">${file}</a>`);
  mkdirSync(join(dir, "simple/files"));
  execFileSync("python3", ["-c", wheel, join(dir, "simple/files", file)]);

  const go = "goproxy/sample.test/sample/@v";
  put(`${go}/list`, "v1.0.0\n");
  put(`${go}/v1.0.0.info`, JSON.stringify({ Version: "v1.0.0", Time: "2026-01-01T00:00:00Z" }));
  put(`${go}/v1.0.0.mod`, "module sample.test/sample\n");
  execFileSync("python3", ["-c", module, join(dir, go, "v1.0.0.zip")]);

  put("crate/sample-1.0.0/Cargo.toml", '[package]\nname = "sample"\nversion = "1.0.0"\n');
  put("crate/sample-1.0.0/src/lib.rs", "");
  mkdirSync(join(dir, "cargo/dl/sample/1.0.0"), { recursive: true });
  const crate = join(dir, "cargo/dl/sample/1.0.0/download");
  execFileSync("tar", ["-C", join(dir, "crate"), "-czf", crate, "sample-1.0.0"]);
  const cksum = createHash("sha256").update(readFileSync(crate)).digest("hex");
  const entry = { name: "sample", vers: "1.0.0", deps: [], cksum, features: {}, yanked: false };
  put("cargo/sa/mp/sample", `${JSON.stringify(entry)}\n`);
  const dl = "https://api.test/cargo/dl";
  put("cargo/config.json", JSON.stringify({ dl, "auth-required": true }));
}
