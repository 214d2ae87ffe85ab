import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporary } from "../../test/fixtures/ladder.ts";
import { readKubeconfig } from "./kubeconfig.ts";

const place = temporary();

async function config(text: string): Promise<string> {
  const path = join(place.path, "config");
  await writeFile(path, text);
  return path;
}

const WHOLE = `
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: here
  cluster: { server: "https://10.0.0.1:6443/", certificate-authority: ca.pem, tls-server-name: api }
contexts:
- name: one
  context: { cluster: here, user: me, namespace: team }
- name: two
  context: { cluster: here, user: plugin }
- name: three
  context: { cluster: nowhere }
users:
- name: me
  user: { tokenFile: token }
- name: plugin
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1
      command: ./plugin
      args: [login]
`;

test("a context's cluster and user, with files beside the kubeconfig", async () => {
  await writeFile(join(place.path, "ca.pem"), "AUTHORITY");
  await writeFile(join(place.path, "token"), "secret\n");
  const { identity, namespace } = await readKubeconfig({ file: await config(WHOLE) });
  expect(namespace).toBe("team");
  expect(identity.url).toBe("https://10.0.0.1:6443");
  expect(identity.tls()).toEqual({ ca: "AUTHORITY", servername: "api" });
  expect(await identity.headers()).toEqual({ authorization: "Bearer secret" });
});

test("a plugin is asked for a token, and again when that is not taken", async () => {
  const count = join(place.path, "count");
  const script = `#!/bin/sh\n[ "$1" = login ] || exit 3\necho x >> ${count}\necho '{"kind":"ExecCredential","status":{"token":"t'$(wc -l < ${count})'"}}'\n`;
  await writeFile(join(place.path, "plugin"), script, { mode: 0o755 });
  const { identity } = await readKubeconfig({ file: await config(WHOLE), context: "two" });
  expect(await identity.headers()).toEqual({ authorization: "Bearer t1" });
  expect(await identity.headers()).toEqual({ authorization: "Bearer t1" });
  expect(identity.refused()).toBe(true);
  expect(await identity.headers()).toEqual({ authorization: "Bearer t2" });
});

test.each([
  ["no such context", WHOLE.replace("current-context: one", "current-context: none"), "context"],
  ["no such cluster", WHOLE.replace("current-context: one", "current-context: three"), "cluster"],
  ["a proxy", WHOLE.replace("tls-server-name: api", "proxy-url: x"), "proxy-url"],
  ["no URL", WHOLE.replace("https://10.0.0.1:6443/", "ftp://x"), "ftp"],
  ["no YAML", "a: [", ""],
  ["another kind of document", "clusters: 7", "clusters"],
])("%s is said", async (_what, text, word) => {
  const failure = readKubeconfig({ file: await config(text) });
  await expect(failure).rejects.toMatchObject({ code: "ERR_NODE_KUBECONFIG" });
  await failure.catch((error: unknown) => {
    const { message, why = "" } = error as { message: string; why?: string };
    expect(`${message} ${why}`).toContain(word);
  });
});
