/** Work on the blobs of an image, a few at a time. */

/** Blobs fetched or sent at the same time. */
const PARALLEL = 6;

/** Run tasks, a few at a time; the first failure stops those that wait and those that run. */
export async function inParallel(
  tasks: readonly ((signal: AbortSignal) => Promise<void>)[],
  signal?: AbortSignal,
): Promise<void> {
  const failed = new AbortController();
  const both = signal === undefined ? failed.signal : AbortSignal.any([signal, failed.signal]);
  let next = 0;
  let failure: { error: unknown } | undefined;
  const worker = async (): Promise<void> => {
    for (;;) {
      const task = tasks[next];
      next += 1;
      if (task === undefined || failure !== undefined) return;
      try {
        await task(both);
      } catch (error) {
        failure ??= { error };
        failed.abort(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL, tasks.length) }, worker));
  if (failure !== undefined) throw failure.error;
}
