/**
 * Writes what is made from tables, of commands, of Docker's habits and of the gateway's routes: docs/cli.md,
 * docs/docker.md, docs/vmsan.1, docs/completion/, docs/openapi.json.
 * `node scripts/generate-docs.ts`; with --check it writes nothing and fails if they differ.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { completionScript } from "../src/cli/completion.ts";
import { describeCommand } from "../src/cli/describe.ts";
import { createProgram } from "../src/cli/program.ts";
import { openApiDocument } from "../src/gateway/native/openapi.ts";
import { packageVersion } from "../src/util/package.ts";
import { dockerDocument } from "./lib/docker-habits.ts";
import { manualPage, markdownReference } from "./lib/documents.ts";

const root = resolve(import.meta.dirname, "..");

/** Path below the repository → content. */
export async function generatedDocuments(): Promise<Record<string, string>> {
  const program = describeCommand(await createProgram());
  return {
    "docs/cli.md": markdownReference(program),
    "docs/docker.md": await dockerDocument(),
    "docs/vmsan.1": manualPage(program, packageVersion()),
    "docs/completion/vmsan.bash": completionScript(program, "bash"),
    "docs/openapi.json": `${JSON.stringify(openApiDocument(), null, 1)}\n`,
    "docs/completion/_vmsan": completionScript(program, "zsh"),
    "docs/completion/vmsan.fish": completionScript(program, "fish"),
  };
}

/** Of those, the ones that are not on disk as they should be. */
export async function outdatedDocuments(): Promise<string[]> {
  return Object.entries(await generatedDocuments()).flatMap(([path, content]) => {
    try {
      return readFileSync(join(root, path), "utf8") === content ? [] : [path];
    } catch {
      // ENOENT: not written yet.
      return [path];
    }
  });
}

if (process.argv[1] === import.meta.filename) {
  if (process.argv[2] === "--check") {
    const outdated = await outdatedDocuments();
    for (const path of outdated) console.error(`${path} is out of date: run npm run docs`);
    process.exitCode = outdated.length === 0 ? 0 : 1;
  } else {
    for (const [path, content] of Object.entries(await generatedDocuments())) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), content);
    }
  }
}
