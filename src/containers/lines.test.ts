import { Readable } from "node:stream";
import { expect, test, vi } from "vitest";
import type { Vm } from "../client/vm.ts";
import { addLines } from "./lines.ts";

/** A guest with one file. @returns what is written to it, in the end */
function guest(content: () => Iterable<Buffer>): { vm: Vm; written: () => string } {
  let written = "";
  const vm = {
    view: { driver: "qemu" },
    openFile: async () => await Promise.resolve(Readable.from(content())),
    writeFile: async (_path: string, source: AsyncIterable<Buffer>) => {
      for await (const part of source) written += part.toString();
    },
  } as unknown as Vm;
  return { vm, written: () => written };
}

test("lines that are missing are added behind what is there", async () => {
  const { vm, written } = guest(() => [Buffer.from("1 a\n2"), Buffer.from(" b")]);
  await addLines(vm, "/etc/hosts", ["1 a", "3 c"]);
  expect(written()).toBe("1 a\n2 b\n3 c\n");
});

test("a file that a guest has made endless is not read to its end", async () => {
  const piece = vi.fn(() => Buffer.alloc(64 << 10));
  const { vm, written } = guest(function* endless() {
    for (let i = 0; i < 10_000; i += 1) yield piece();
  });
  await expect(addLines(vm, "/etc/hosts", ["3 c"])).rejects.toMatchObject({
    code: "ERR_AGENT_FILE",
  });
  expect(piece.mock.calls.length).toBeLessThan(1000);
  expect(written()).toBe("");
});
