import { expect, test } from "vitest";
import type { Vmsan } from "../../../client/vmsan.ts";
import { podSchema } from "../../../schema/pod.ts";
import type { Pod } from "../../../schema/pod.ts";
import type { References } from "../files/references.ts";
import { PodImages } from "./images.ts";

const references = {} as References;

function pod(image: string, imagePullPolicy = "IfNotPresent"): Pod {
  return podSchema.parse({
    metadata: { name: "a", namespace: "b", uid: "c" },
    spec: { containers: [{ name: "main", image, imagePullPolicy }] },
  });
}

/** Pulls that end when they are told to. */
function registry(): { vmsan: Vmsan; asked: string[]; answers: PromiseWithResolvers<void>[] } {
  const asked: string[] = [];
  const answers: PromiseWithResolvers<void>[] = [];
  const pull = async (image: string, { signal }: { signal?: AbortSignal }): Promise<void> => {
    asked.push(image);
    const answer = Promise.withResolvers<void>();
    signal?.addEventListener("abort", () => answer.reject(signal.reason as Error));
    answers.push(answer);
    await answer.promise;
  };
  return { vmsan: { images: { pull } } as unknown as Vmsan, asked, answers };
}

const settled = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve));

test("an image is asked for once, however many begin with it; who wants it always asks each time", async () => {
  const { vmsan, asked, answers } = registry();
  const images = new PodImages(vmsan);
  const fetch = async (of: Pod, signal?: AbortSignal): Promise<string> => {
    const [container] = of.spec.containers;
    if (container === undefined) throw new Error("no container");
    return await images.fetch(of, container, references, signal === undefined ? {} : { signal });
  };
  const first = [fetch(pod("a")), fetch(pod("a")), fetch(pod("a"))];
  await settled();
  expect(asked).toEqual(["a"]);
  answers[0]?.resolve();
  // It may be pulled by the VM's creation as well, should it be gone by then.
  expect(await Promise.all(first)).toEqual(["never", "missing", "missing"]);
  expect(await fetch(pod("a"))).toBe("missing");
  const always = fetch(pod("a", "Always"));
  await settled();
  expect(asked).toEqual(["a", "a"]);
  answers[1]?.resolve();
  expect(await always).toBe("never");
  images.forget(pod("a").spec.containers[0]!);
  const again = fetch(pod("a"));
  await settled();
  expect(asked.length).toBe(3);
  answers[2]?.resolve();
  await again;
});

test("a failure is that of all who wait; one that is not wanted any more is asked for by another", async () => {
  const { vmsan, asked, answers } = registry();
  const images = new PodImages(vmsan);
  const fetch = async (signal?: AbortSignal): Promise<string> => {
    const one = pod("dead");
    const [container] = one.spec.containers;
    if (container === undefined) throw new Error("no container");
    return await images.fetch(one, container, references, signal === undefined ? {} : { signal });
  };
  const failing = Promise.allSettled([fetch(), fetch()]);
  await settled();
  answers[0]?.reject(new Error("no route"));
  expect((await failing).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  expect(asked.length).toBe(1);
  const [one, other] = [new AbortController(), new AbortController()];
  const both = Promise.allSettled([fetch(one.signal), fetch(), fetch(other.signal)]);
  await settled();
  other.abort(new Error("not wanted"));
  one.abort(new Error("not wanted"));
  await settled();
  await settled();
  expect(asked.length).toBe(3);
  answers[2]?.resolve();
  expect((await both).map(({ status }) => status)).toEqual(["rejected", "fulfilled", "rejected"]);
});
