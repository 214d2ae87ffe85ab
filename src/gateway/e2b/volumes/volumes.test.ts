import type { IncomingMessage } from "node:http";
import { expect, test } from "vitest";
import { VmsanError } from "../../../model/errors.ts";
import type { Caller } from "../../access/gate.ts";
import type { VolumeContext } from "./volumes.ts";
import { volumeMounts, volumeOfToken } from "./volumes.ts";

/** A request with this token. */
const bearing = (token: string): IncomingMessage =>
  ({ headers: { authorization: `Bearer ${token}` } }) as unknown as IncomingMessage;

test("a token is held against one volume, and says nothing of others", async () => {
  const looked: string[] = [];
  const key = { project: "ours", admin: false };
  const labels = { "vmsan.project": "ours" };
  const context = {
    vmsan: {
      volumes: {
        list: async () => await Promise.reject(new Error("all were looked at")),
        get: async (name: string) => {
          looked.push(name);
          await Promise.resolve();
          if (name === "mine") return { name, createdAt: "then", labels };
          const code = name === "../x" ? "ERR_VALIDATION_VOLUME" : "ERR_VOLUME_NOT_FOUND";
          throw new VmsanError({ code, message: "none" });
        },
      },
    },
    gate: {
      tokens: {
        bearer: async (token: string, _for: string, about: string) =>
          await Promise.resolve(token === `good-${about}`.replace(" ", "-") ? key : undefined),
      },
      pass: (_request: IncomingMessage, passing: object) => ({ key: passing }),
    },
  } as unknown as VolumeContext;
  expect((await volumeOfToken(context, bearing("good-mine-then"), "mine")).name).toBe("mine");
  for (const [id, token] of [
    ["mine", "other"],
    ["none", "good-mine-then"],
    ["../x", "good-mine-then"],
  ] as const) {
    await expect(volumeOfToken(context, bearing(token), id)).rejects.toMatchObject({
      code: "unauthenticated",
    });
  }
  expect(looked).toEqual(["mine", "mine", "none", "../x"]);
});

test("a volume's bare name is the own project's, for an admin too; another's, or the host's, is its ID", async () => {
  const labels = (project: string): object => ({
    "vmsan.project": project,
    "vmsan.e2b.name": "data",
  });
  const all = [
    { name: "e2b-1", labels: labels("theirs") },
    { name: "e2b-2", labels: labels("ours") },
    { name: "disk", labels: {} },
  ];
  const vmsan = { volumes: { list: async () => await Promise.resolve(all) } };
  const mounted = async (project: string, name: string): Promise<string | undefined> => {
    const caller = { key: { admin: true, project } } as unknown as Caller;
    const context = { vmsan } as unknown as VolumeContext;
    return (await volumeMounts(context, caller, [{ name, path: "/mnt" }]))[0]?.name;
  };
  expect(await mounted("ours", "data")).toBe("e2b-2");
  expect(await mounted("ours", "e2b-1")).toBe("e2b-1");
  expect(await mounted("ours", "disk")).toBe("disk");
  await expect(mounted("third", "data")).rejects.toThrow("not found");
});
