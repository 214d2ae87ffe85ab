import { expect, test } from "vitest";
import type { Vm } from "../../../client/vm.ts";
import { GuestUsers } from "./users.ts";

/** A guest with these users, and how often it was asked for its files. */
function guest(passwd: string): { vm: Vm; asked: () => number } {
  let asked = 0;
  const transport = {
    request: async (_method: string, _path: string, { body }: { body: { path: string } }) => {
      asked += 1;
      const text = body.path === "/etc/passwd" ? passwd : "me:x:7:\n";
      return await Promise.resolve({ content: Buffer.from(text).toString("base64") });
    },
  };
  return { vm: { id: "vm-00000001", transport } as unknown as Vm, asked: () => asked };
}

const ME = "me:x:7:7::/home/me:/bin/sh\n";

test("names are kept for a while, but for a guest that has very many of them", async () => {
  const users = new GuestUsers();
  const small = guest(ME);
  for (let call = 0; call < 3; call += 1)
    expect(await users.user(small.vm, "me")).toMatchObject({ uid: 7, home: "/home/me" });
  expect(small.asked()).toBe(2);
  const others = new GuestUsers();
  const large = guest(`${"x::::::\n".repeat(10_000)}${ME}`);
  for (let call = 0; call < 3; call += 1)
    expect(await others.user(large.vm, "me")).toMatchObject({ uid: 7 });
  expect(large.asked()).toBe(6);
});
