/** How much of containers' disks is their own: `docker ps --size`, `docker inspect --size`, `docker system df`. */
import { Slots } from "../../../util/flow/slots.ts";
import type { Engine } from "../engine.ts";
import type { Container } from "./container.ts";

/** Guests that are held at a time, for the instant in which their disk is taken. */
const AT_ONCE = 4;

/** Bytes of the files that a container has made or changed, and of those together with its image; nothing where that cannot be told. */
export interface Sizes {
  SizeRw?: number;
  SizeRootFs?: number;
}

/** Bytes of the files that a container has made or changed; as with `docker diff` what is mounted does not count. */
async function ownBytes({ vmsan }: Engine, { record: { vm } }: Container): Promise<number> {
  if (vm === undefined) return 0;
  const changes = await (await vmsan.get(vm)).diff();
  return changes.reduce((sum, { sizeBytes = 0 }) => sum + sizeBytes, 0);
}

/** The sizes of containers, in their order. */
export async function sizesOf(engine: Engine, containers: readonly Container[]): Promise<Sizes[]> {
  if (containers.length === 0) return [];
  const images = await engine.catalogue.all();
  const slots = new Slots(AT_ONCE);
  return await Promise.all(
    containers.map(async (container) => {
      const image = images.find(({ id }) => id === container.record.image.id);
      try {
        const own = await slots.run(async () => await ownBytes(engine, container));
        return { SizeRw: own, SizeRootFs: own + (image?.view.sizeBytes ?? 0) };
      } catch (error) {
        // Removed meanwhile, or of a kind that keeps its changes nowhere apart: the others are shown.
        container.complain(error);
        return {};
      }
    }),
  );
}
