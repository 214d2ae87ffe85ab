/** A process that pulls one image into a store: `pull-once.ts STORE REFERENCE`, for tests and benches. */
import { openStore, parseImageSource, resolveImage } from "../../src/oci/images.ts";

const [dir = "", reference = ""] = process.argv.slice(2);
const store = await openStore(dir);
process.stdout.write("begin\n");
const start = performance.now();
const image = await resolveImage(parseImageSource(reference), { store, pull: "always" });
process.stdout.write(`${image.digest}\n${((performance.now() - start) / 1000).toFixed(3)}\n`);
