/** The network helper's end in this process; programs of these tests stand for the helper. */
import { once } from "node:events";
import { expect, onTestFinished, test } from "vitest";
import { Helper } from "./helper.ts";

test("a helper that takes nothing any more, and has not ended yet, is said to be the trouble", async () => {
  const program = `process.on("message", ({ id }) => process.send({ id, ok: true }, () => process.disconnect()));
    setInterval(() => undefined, 1000);`;
  const helper = new Helper(
    () => [process.execPath, "-e", program],
    () => undefined,
  );
  await helper.hello();
  const child = helper["child"];
  if (child === undefined) throw new TypeError("no helper");
  onTestFinished(() => void child.kill("SIGKILL"));
  if (child.connected) await once(child, "disconnect");
  // By this the realm knows that nothing was run, and runs it itself.
  await expect(helper.run(undefined, ["ip"], "", 1000)).rejects.toMatchObject({
    code: "ERR_NETWORK_HELPER",
  });
});
