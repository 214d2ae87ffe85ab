import { expect, test } from "vitest";
import { imageIn } from "./image-word.ts";

const digest = `@sha256:${"0".repeat(64)}`;

test.each([
  "node:22",
  "python:3.13-slim",
  "owner/name:tag",
  "ghcr.io/owner/name",
  "registry.example:5000/name",
  "localhost:5000/name:1",
  `alpine${digest}`,
  "oci:./dir",
  "docker-archive:a.tar",
  "rootfs:/srv/tree",
])("%s is an image", (word) => {
  expect(imageIn([word])).toBe(word);
  expect(imageIn([word, "sh", "-c", "id"])).toBe(word);
  expect(imageIn([word, "--", "--help"])).toBe(word);
});

test.each(["sh", "node", "/usr/bin/env", "./run", "bin/tool", "a.out", "name.sh", "A=1", "--"])(
  "%s may be a command",
  (word) => expect(imageIn([word, "node:22"])).toBeUndefined(),
);

test("options behind an image are told where they belong", () => {
  expect(() => imageIn(["node:22", "--name", "web"])).toThrow(
    expect.objectContaining({
      code: "ERR_VALIDATION_FLAGS",
      fix: "Put options first: vmsan create --name … --from-image node:22",
    }) as Error,
  );
});
