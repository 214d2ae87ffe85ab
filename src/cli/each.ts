/** One thing done to several things that are named. */
import { asVmsanError } from "../model/errors.ts";
import type { Context } from "./command.ts";
import { statusOf } from "./output.ts";

/**
 * Do something to each of several; one failure does not keep the others from it, and each is told.
 * @param keys what the JSON reply calls all that it was done to, and one of them; `results`: with what became of each, also
 *   where none failed
 * @returns the exit status
 */
export async function toEach(
  { output }: Context<object>,
  names: readonly string[],
  keys: { all: string; one: string; results?: true },
  body: (name: string) => Promise<unknown>,
): Promise<number> {
  const outcomes = await Promise.all(
    names.map(async (name) => {
      try {
        await body(name);
        return { name };
      } catch (error) {
        return { name, error: asVmsanError(error, `${name}: failed`) };
      }
    }),
  );
  const done = outcomes.filter(({ error }) => error === undefined).map(({ name }) => name);
  const errors = outcomes.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const results = outcomes.map(({ name, error }) => ({
    [keys.one]: name,
    success: error === undefined,
    ...(error === undefined ? {} : { error: error.toJSON() }),
  }));
  // A script that looks for an error finds one also beside the results.
  const first = errors[0] === undefined ? {} : { error: errors[0].toJSON() };
  const each = keys.results === true || errors.length > 0 ? { results } : {};
  output.result({ [keys.all]: done, ...each, ...first }, done.join("\n"));
  if (!output.json) for (const error of errors) output.failure(error);
  return Math.max(0, ...errors.map(statusOf));
}
