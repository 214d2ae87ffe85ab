/** What a build is told that buildah has given up, and what buildah is told of a build. */
import { expect, test } from "vitest";
import type { BuildRequest } from "../model/api/builds.ts";
import { failed } from "./advice.ts";
import { BuildOutput } from "./output.ts";
import { placesOf, wordsOf } from "./builder/words.ts";

/** The error for a build that said this. */
const errorFor = (...lines: string[]): ReturnType<typeof failed> => {
  const output = new BuildOutput(() => undefined);
  output.take("stderr", Buffer.from(`STEP 2/2: RUN x\n${lines.join("\n")}\n`));
  return failed(output, 125, "FROM x\nRUN x\n");
};

test.each([
  ["COPY --parents a b", "COPY --parents is not supported", "cp --parents"],
  ["RUN --security=insecure x", "RUN only supports the --mount and --network flag", "--security"],
  [
    `RUN ${"--mount=type=cache,target=/a ".repeat(80)}x`,
    'resolving mountpoints for container "1f": unrecognized value "private" for field `sharing`: %!w(<nil>)',
    "sharing=locked",
  ],
  ["RUN --mount=type=tmpfs,size=1m x", "resolving: size: invalid mount option", "tmpfs-size"],
  ["RUN --mount=type=secret,env=A x", "secret should have syntax id=id", "/run/secrets"],
])("%s is refused with what does the same", (step, words, fix) => {
  const error = errorFor(`Error: building at STEP "${step}": ${words}`);
  expect(error).toMatchObject({ code: "ERR_BUILD_UNSUPPORTED" });
  expect(error.fix).toContain(fix);
});

test("a command that prints the same is one that has failed", () => {
  const error = errorFor("COPY --parents is not supported", "Error: while running: exit status 1");
  expect(error).toMatchObject({ code: "ERR_BUILD_FAILED", details: { lines: [2] } });
  expect(error.fix).toContain("Correct the Dockerfile");
});

test("what buildah says of a repository that it has not got is explained", () => {
  const root = 'copier: get: "/"("/"): copying /proc/1/arch_status: archive/tar: write too long';
  const error = errorFor(`Error: building at STEP "ADD http://x/y.git /": reading "x": ${root}`);
  expect(error).toMatchObject({ code: "ERR_BUILD_FAILED" });
  expect(error.fix).toContain("could not be cloned");
});

test("files whose names mean in layers that others are removed are named", () => {
  const file = "open /var/lib/containers/storage/overlay/1f/diff/opt/.wh.tree";
  const pushing = `pushing image "sha256:1" to "docker://x": reading blob sha256:2: ${file}`;
  const error = errorFor(`Error: ${pushing}: no such file or directory`);
  expect(error.fix).toContain(".dockerignore");
  expect(errorFor(`Error: ${pushing.replace(".wh.", ".")}: no such file`).fix).not.toContain(
    ".wh.",
  );
});

test("hosts and images as contexts reach buildah", () => {
  const request = {
    buildArgs: [],
    labels: ["bare="],
    secrets: {},
    addHosts: ["a:10.0.0.1"],
    contexts: ["base=r.test:5/x=y"],
  } as unknown as BuildRequest;
  const words = wordsOf(request, placesOf("ID"));
  expect(words).toContain("--add-host=a:10.0.0.1");
  expect(words).toContain("--build-context=base=docker-image://r.test:5/x=y");
  expect(words).toContain("--label=bare=");
});
