import { expect, test } from "vitest";
import type { Vmsan } from "../../client/vmsan.ts";
import { VmsanError } from "../../model/errors.ts";
import type { ContainerRecord } from "../../schema/docker.ts";
import { shareVolume, toBeShared } from "./shared-volumes.ts";

type Status = ContainerRecord["state"]["status"];

/** What is looked at of a container that mounts these volumes, `NAME` or `NAME:ro`. */
function container(status: Status, ...words: string[]): ContainerRecord {
  const mounts = words.map((word) => {
    const [name, mode] = word.split(":");
    return {
      Type: name === "" ? "bind" : "volume",
      ...(name && { Name: name }),
      RW: mode !== "ro",
    };
  });
  return { name: words.join(), state: { status }, mounts } as unknown as ContainerRecord;
}

test("a volume is to be shared when another container uses it, or is about to, and one of both writes", () => {
  const mine = container("created", "data", "read:ro", "", "alone");
  const shared = (...others: ContainerRecord[]): string[] => toBeShared(mine, others);
  expect(shared()).toEqual([]);
  for (const status of ["created", "running", "paused", "restarting"] as const) {
    expect(shared(container(status, "data:ro"), container(status, "other"))).toEqual(["data"]);
  }
  expect(shared(container("created", "read:ro", ""))).toEqual([]);
  expect(shared(container("created", "read"))).toEqual(["read"]);
  for (const status of ["exited", "dead"] as const) {
    expect(shared(container(status, "data"))).toEqual([]);
  }
});

test("one that a VM holds stays as it is; what else keeps it from being shared is said", async () => {
  const failing = (code: string): Vmsan =>
    ({
      cluster: false,
      volumes: {
        share: async () => await Promise.reject(new VmsanError({ code, message: "no" })),
      },
    }) as unknown as Vmsan;
  const idle = [container("created", "data"), container("running", "other")];
  await shareVolume(failing("ERR_VOLUME_IN_USE"), "data", idle);
  await shareVolume(failing("ERR_VOLUME_NOT_FOUND"), "data", idle);
  await shareVolume({ cluster: true } as unknown as Vmsan, "data", idle);
  await expect(shareVolume(failing("ERR_VOLUME_DAMAGED"), "data", idle)).rejects.toMatchObject({
    code: "ERR_VOLUME_DAMAGED",
  });
  const running = [...idle, container("running", "data")];
  await expect(shareVolume(failing("ERR_VOLUME_IN_USE"), "data", running)).rejects.toMatchObject({
    status: 409,
    message: expect.stringMatching(/in use by data, .*docker restart data/) as string,
  });
});
