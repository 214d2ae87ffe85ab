import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporary } from "../../test/fixtures/ladder.ts";
import { nodeOptions } from "./options.ts";

const place = temporary();

test.each([["clientCa"], ["tlsCert"]] as const)("a file that is not there, by %s", async (name) => {
  const kubeconfig = join(place.path, "kubeconfig");
  await writeFile(
    kubeconfig,
    `
current-context: c
contexts: [{ name: c, context: { cluster: a, user: u } }]
clusters: [{ name: a, cluster: { server: "https://127.0.0.1:1" } }]
users: [{ name: u, user: { token: x } }]
`,
  );
  const path = join(place.path, "missing");
  const files = name === "clientCa" ? { clientCa: path } : { tlsCert: path, tlsKey: path };
  await expect(nodeOptions({ kubeconfig, ...files })).rejects.toMatchObject({
    code: "ERR_VALIDATION_FLAGS",
    message: expect.stringContaining(path),
  });
});
