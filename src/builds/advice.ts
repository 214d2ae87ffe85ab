/**
 * What to do about a build that buildah has given up: in its words for what it does not know, there is no hint at what
 * does the same.
 */
import { VmsanError } from "../model/errors.ts";
import { linesOf } from "./dockerfile/lines.ts";
import type { BuildOutput } from "./output.ts";

/** Words, and what to do about them. */
type Advice = readonly [RegExp, string];

/** What buildah says of what it does not do, and what to use instead. */
const INSTEAD: readonly Advice[] = [
  [
    /(COPY|ADD) --parents is not supported/,
    "Copy the directory with all that is in it, or `RUN --mount=type=bind,target=/context cd /context && cp --parents FILES /to/`.",
  ],
  [
    /COPY --link is not supported/,
    "It stands in a base image's ONBUILD: build that one again with COPY alone.",
  ],
  [
    /ADD --keep-git-dir is not supported/,
    "Clone it in a command: `RUN git clone ADDRESS /to`, or beside the Dockerfile before the build.",
  ],
  [
    /RUN only supports the --mount and --network flag/,
    "Leave out --security and --device: a step is root of the builder's own kernel, and has no devices of this host.",
  ],
  [
    /unsupported value ".*" for "RUN --network"/,
    "Use --network=none or no such flag; for the whole build `--network none` and policies say what is reached.",
  ],
  [
    /unrecognized value ".*" for field `sharing`/,
    "Use sharing=locked (one build at a time) or sharing=shared.",
  ],
  [/: size: invalid mount option/, "Write tmpfs-size=64m instead of size=64m."],
  [
    /secret should have syntax/,
    "A secret is a file: leave env= out, and read it in the command: `TOKEN=$(cat /run/secrets/ID)`.",
  ],
  [
    /ssh required but no ssh with id/,
    "Agents of ssh are not lent to builds: give a key as a secret (--secret id=key,src=FILE), and `ssh -i /run/secrets/key`.",
  ],
  [/Error parsing chmod/, "Give the mode as an octal number (--chmod=755), without variables."],
];

/** What is said where something has failed, and what it means. */
const MEANING: readonly Advice[] = [
  [
    // It copies its own root directory where a repository could not be cloned.
    /reading ".*": copier: get: "\/"/,
    "The repository could not be cloned: check its address and the build's network (`--allowed-domain`, `--network-policy`), or clone it before the build.",
  ],
  [
    // Layers on an overlay lose such files, and are then not what they were said to be.
    /reading blob .*\/\.wh\.[^/]*: no such file or directory/,
    "A name that begins with `.wh.` means in a layer that the rest of it is removed: no image can have such files. Leave them out by .dockerignore.",
  ],
  [
    /exec format error/i,
    "Commands of other processors cannot be run here: begin what cross-compiles with `FROM --platform=$BUILDPLATFORM`.",
  ],
];

/** The error for a build that buildah has given up. */
export function failed(output: BuildOutput, exitCode: number, dockerfile = ""): VmsanError {
  const { step, tail } = output;
  const lines = linesOf(dockerfile, step);
  const place = lines.length === 0 ? "" : `line ${lines.join(" or ")}, `;
  const error = tail.split("\n").findLast((line) => line.startsWith("Error: ")) ?? "";
  const instead = INSTEAD.find(([said]) => said.test(error))?.[1];
  const meant = MEANING.find(([said]) => said.test(tail))?.[1];
  return new VmsanError({
    code: instead === undefined ? "ERR_BUILD_FAILED" : "ERR_BUILD_UNSUPPORTED",
    message: step === "" ? "The build failed" : `The build failed at ${place}${step}`,
    why: tail === "" ? `buildah ended with status ${exitCode}.` : tail,
    fix:
      instead ?? meant ?? "Correct the Dockerfile or what it runs; steps before that one are kept.",
    details: { exitCode, ...(lines.length === 0 ? {} : { lines }) },
  });
}
