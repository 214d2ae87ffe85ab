/** Bundles the dashboard (src/ui): one page, scripts and styles named by their content, no other origin. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { build } from "esbuild";
import type { Plugin } from "esbuild";

const root = resolve(import.meta.dirname, "../..");

/**
 * xterm.js writes style sheets and style attributes, which the page's policy forbids. Here it gets style
 * sheets that scripts adopt, and single properties, which are allowed. An xterm.js that does this in another
 * way fails the build.
 */
const STYLES = `
const __adopt = (document) => {
  const element = document.createElement("span");
  const sheet = new CSSStyleSheet();
  element.hidden = true;
  document.adoptedStyleSheets.push(sheet);
  Object.defineProperty(element, "textContent", { set: (text) => sheet.replaceSync(text) });
  element.remove = () => {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((other) => other !== sheet);
    Element.prototype.remove.call(element);
  };
  return element;
};
const __style = (element, text) => { element.style.cssText = text; };
`;

const strictStyles: Plugin = {
  name: "strict-styles",
  setup(run) {
    run.onLoad({ filter: /@xterm\/xterm\/lib\/xterm\.mjs$/ }, async ({ path }) => {
      let text = await readFile(path, "utf8");
      const replace = (pattern: RegExp, by: string, times: number): void => {
        const found = text.match(pattern)?.length ?? 0;
        if (found !== times) throw new Error(`${path}: ${pattern} is there ${found} times`);
        text = text.replace(pattern, by);
      };
      replace(/\b([\w.]+)\.createElement\("style"\)/g, "__adopt($1)", 3);
      replace(/\b(\w+)\.setAttribute\("style",/g, "__style($1,", 1);
      return { contents: STYLES + text, loader: "js" };
    });
  },
};

/** Write the bundle to a directory that is made. */
export async function bundleUi(outdir: string): Promise<void> {
  const ui = join(root, "src/ui");
  const { metafile } = await build({
    absWorkingDir: root,
    entryPoints: [join(ui, "main.tsx")],
    outdir,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "browser",
    target: ["chrome123", "firefox120", "safari17.5"],
    entryNames: "[name]-[hash]",
    chunkNames: "[name]-[hash]",
    assetNames: "[name]-[hash]",
    jsx: "automatic",
    jsxImportSource: "preact",
    minify: true,
    legalComments: "none",
    metafile: true,
    plugins: [strictStyles],
    logLevel: "warning",
  });
  const [script, output] =
    Object.entries(metafile.outputs).find(([, { entryPoint }]) => entryPoint !== undefined) ?? [];
  if (script === undefined || output?.cssBundle === undefined) throw new Error("no entry point");
  const page = await readFile(join(ui, "index.html"), "utf8");
  await mkdir(outdir, { recursive: true });
  await writeFile(
    join(outdir, "index.html"),
    page.replace("{{script}}", basename(script)).replace("{{style}}", basename(output.cssBundle)),
  );
}
