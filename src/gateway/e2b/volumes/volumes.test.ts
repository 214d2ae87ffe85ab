import { expect, test } from "vitest";
import { VmsanError } from "../../../model/errors.ts";
import type { VolumeContext } from "./volumes.ts";
import { volumeOfToken } from "./volumes.ts";

test("a token is held against one volume, and says nothing of others", async () => {
  const looked: string[] = [];
  const context = {
    vmsan: {
      volumes: {
        list: async () => await Promise.reject(new Error("all were looked at")),
        get: async (name: string) => {
          looked.push(name);
          await Promise.resolve();
          if (name === "mine") return { name, createdAt: "then" };
          const code = name === "../x" ? "ERR_VALIDATION_VOLUME" : "ERR_VOLUME_NOT_FOUND";
          throw new VmsanError({ code, message: "none" });
        },
      },
    },
    gate: { tokens: { matches: (about: string, _for: string, token: string) => token === about } },
  } as unknown as VolumeContext;
  expect((await volumeOfToken(context, "mine", "mine then")).name).toBe("mine");
  for (const [id, token] of [
    ["mine", "other"],
    ["none", "mine then"],
    ["../x", "mine then"],
  ] as const) {
    await expect(volumeOfToken(context, id, token)).rejects.toMatchObject({
      code: "unauthenticated",
    });
  }
  expect(looked).toEqual(["mine", "mine", "none", "../x"]);
});
