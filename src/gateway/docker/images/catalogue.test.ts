/** The store's images as Docker counts them. */
import { expect, test } from "vitest";
import type { ImageDetails } from "../../../client/images.ts";
import type { Vmsan } from "../../../client/vmsan.ts";
import type { ImageView } from "../../../model/api/images.ts";
import { Catalogue } from "./catalogue.ts";

test("of an image with two manifests neither names nor users are lost", async () => {
  const digest = (digit: string) => `sha256:${digit.repeat(64)}` as const;
  const view = (digit: string, name: string, usedBy: string[]): ImageView => ({
    names: [name],
    digest: digest(digit),
    platform: "linux/amd64",
    sizeBytes: 1,
    usedBy,
  });
  const images = [
    view("1", "docker.io/library/one:1", ["first"]),
    view("2", "docker.io/library/two:1", ["second"]),
    view("3", "docker.io/library/other:1", []),
  ];
  const inspect = async (name: string): Promise<ImageDetails> => {
    const found = images.find(({ names }) => names.includes(name));
    const configDigest = digest(name.includes("other") ? "b" : "a");
    return await Promise.resolve({ ...found, configDigest } as unknown as ImageDetails);
  };
  const list = async (): Promise<object> => await Promise.resolve({ images });
  const catalogue = new Catalogue({ images: { list, inspect } } as unknown as Vmsan);
  const all = await catalogue.all();
  expect(all.map(({ names, view: { usedBy } }) => [names, usedBy])).toEqual([
    [
      ["one:1", "two:1"],
      ["first", "second"],
    ],
    [["other:1"], []],
  ]);
  // What was asked for is not changed by that.
  expect(images[0]?.usedBy).toEqual(["first"]);
});
