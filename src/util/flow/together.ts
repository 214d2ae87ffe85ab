/** Work side by side, of which nothing goes on once it has failed. */

/**
 * Run all at once. When one fails the others' signal aborts, and the failure is thrown only
 * when all have ended: whoever cleans up afterwards meets no late writer.
 */
export async function together<T extends readonly unknown[]>(
  signal: AbortSignal,
  ...tasks: { [K in keyof T]: (signal: AbortSignal) => Promise<T[K]> }
): Promise<T> {
  const failed = new AbortController();
  const shared = AbortSignal.any([signal, failed.signal]);
  let first: { error: unknown } | undefined;
  const results = await Promise.all(
    tasks.map(async (task) => {
      try {
        return await task(shared);
      } catch (error) {
        first ??= { error };
        failed.abort(error);
        return undefined;
      }
    }),
  );
  if (first !== undefined) throw first.error;
  return results as unknown as T;
}
