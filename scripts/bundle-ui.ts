/** Bundles the dashboard alone: node scripts/bundle-ui.ts OUTPUT-DIRECTORY; a gateway in a checkout asks for it. */
import { bundleUi } from "./lib/ui-bundle.ts";

const outdir = process.argv[2];
if (outdir === undefined) throw new Error("usage: node scripts/bundle-ui.ts OUTPUT-DIRECTORY");
await bundleUi(outdir);
