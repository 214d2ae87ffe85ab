/** schema/: the catalogue of runtimes, a file that users edit (VMSAN_DIR/runtimes.json). */
import * as z from "zod";

/** Names of Debian packages (Debian Policy 5.6.7). */
const packageName = z.string().regex(/^[a-z0-9][a-z0-9+.-]{1,127}$/, "is not a package's name");

const suite = z.string().regex(/^[a-z][a-z0-9.-]{0,63}$/);

/** A release by its number and its name. */
const release = z.strictObject({ version: z.string().regex(/^\d{1,3}(\.\d{1,2})?$/), suite });

const debianRecipe = z.strictObject({
  kind: z.literal("debian"),
  packages: z.array(packageName).max(500),
  /** Release to take; default: the host's, when the host is Debian or Ubuntu. */
  suite: suite.optional(),
  /** The oldest releases that will do: taken instead of the host's where that is older. */
  oldest: z.strictObject({ debian: release.optional(), ubuntu: release.optional() }).optional(),
  /**
   * Packages are only unpacked, with none of their scripts, and exactly those that are named and what
   * they need: the one way to another release than the host's. For root alone.
   */
  unpack: z.boolean().optional(),
  /** Where packages come from; default: what the host's apt uses. */
  mirror: z
    .string()
    .regex(/^[a-z+]+:\/{1,3}[^\s"']+$/)
    .max(1024)
    .optional(),
});

const nodeRecipe = z.strictObject({
  kind: z.literal("node"),
  /** Runtime below it, itself made from a recipe. */
  from: z.string(),
  /** Version range as npm understands it: `22`, `24.1.0`. */
  version: z.string().regex(/^\d{1,3}(\.\d{1,5}){0,2}$/),
  /** Version range of the npm client in it. */
  npm: z.string().regex(/^\d{1,3}(\.\d{1,5}){0,2}$/),
});

const runtime = z
  .strictObject({
    description: z.string().max(200).optional(),
    /** Any image source that `vmsan run` takes. */
    image: z.string().min(1).max(4096).optional(),
    recipe: z.discriminatedUnion("kind", [debianRecipe, nodeRecipe]).optional(),
    /** The user whom commands run as; a recipe makes it, with uid 1000 and sudo. */
    user: z
      .string()
      .regex(/^[a-z_][a-z0-9_-]{0,31}$/)
      .optional(),
    workdir: z.string().startsWith("/").max(4096).optional(),
    env: z.array(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*=/)).optional(),
    cmd: z.array(z.string()).optional(),
  })
  .refine((value) => (value.image === undefined) !== (value.recipe === undefined), {
    error: "needs either an image or a recipe",
  })
  .refine(
    ({ recipe, user }) =>
      recipe?.kind !== "debian" || recipe.unpack !== true || user === undefined || user === "root",
    { error: "packages that are only unpacked have no user but root" },
  );

/** The whole file: name → runtime; `null` takes a built-in one away. */
export const catalogueSchema = z.strictObject({
  schema: z.literal(1),
  runtimes: z.record(
    z.string().regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "is not a runtime's name"),
    runtime.nullable(),
  ),
});

/** One runtime of the catalogue. */
export type Runtime = z.output<typeof runtime>;
/** How a base is made from Debian's packages. */
export type DebianRecipe = z.output<typeof debianRecipe>;
/** How Node.js is put on top of a base. */
export type NodeRecipe = z.output<typeof nodeRecipe>;
