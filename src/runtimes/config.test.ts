import { expect, test } from "vitest";
import type { ImageConfig } from "../model/image.ts";
import { configOver } from "./config.ts";

const image: ImageConfig = {
  env: ["PATH=/bin", "A=1", "B=x=y"],
  entrypoint: ["/entry"],
  cmd: ["python3"],
  workingDir: "/app",
  user: "nobody",
  labels: { a: "b" },
  exposedPorts: ["80/tcp"],
  volumes: ["/data"],
};

test("an entry that says nothing leaves the image's configuration", () => {
  expect(configOver(image, {})).toEqual(image);
});

test("variables are replaced by name, the rest whole; the entry point stays", () => {
  const entry = { env: ["A=2", "C=3"], cmd: ["sh", "-i"], user: "dev", workdir: "/home/dev" };
  expect(configOver(image, entry)).toEqual({
    ...image,
    env: ["PATH=/bin", "B=x=y", "A=2", "C=3"],
    cmd: ["sh", "-i"],
    user: "dev",
    workingDir: "/home/dev",
  });
});
