/** Counters and histograms with labels, for monitoring. */
import type { MetricFamily, MetricSample } from "../../model/metrics.ts";

/** Most combinations of labels of one name: what is beyond is counted together. */
const MAX_SERIES = 200;
const OTHER = "other";

type Labels = Record<string, string>;

/** Values of one name by their labels. */
class Series<T> {
  private readonly values = new Map<string, { labels: Labels; value: T }>();
  private readonly make: () => T;

  constructor(make: () => T) {
    this.make = make;
  }

  at(labels: Labels): T {
    const key = JSON.stringify(labels);
    const known = this.values.get(key);
    if (known !== undefined) return known.value;
    if (this.values.size >= MAX_SERIES && !Object.values(labels).every((text) => text === OTHER)) {
      return this.at(Object.fromEntries(Object.keys(labels).map((name) => [name, OTHER])));
    }
    const value = this.make();
    this.values.set(key, { labels, value });
    return value;
  }

  map(body: (labels: Labels, value: T) => MetricSample[]): MetricSample[] {
    return [...this.values.values()].flatMap(({ labels, value }) => body(labels, value));
  }
}

/** Something that only grows. */
export class Counter {
  private readonly series = new Series(() => ({ value: 0 }));
  private readonly about: Pick<MetricFamily, "name" | "help">;

  constructor(name: string, help: string) {
    this.about = { name, help };
  }

  add(labels: Labels = {}, value = 1): void {
    this.series.at(labels).value += value;
  }

  family(): MetricFamily {
    const samples = this.series.map((labels, { value }) => [{ labels, value }]);
    return { ...this.about, type: "counter", samples };
  }
}

/** How often something was at most so large. */
export class Histogram {
  private readonly series: Series<{ counts: number[]; sum: number; count: number }>;
  private readonly about: Pick<MetricFamily, "name" | "help">;
  private readonly bounds: readonly number[];

  /** @param bounds upper bounds, ascending; what is above them is counted too */
  constructor(name: string, help: string, bounds: readonly number[]) {
    this.about = { name, help };
    this.bounds = bounds;
    this.series = new Series(() => ({ counts: bounds.map(() => 0), sum: 0, count: 0 }));
  }

  observe(labels: Labels, value: number): void {
    const series = this.series.at(labels);
    series.sum += value;
    series.count += 1;
    this.bounds.forEach((bound, index) => {
      if (value <= bound) series.counts[index] = (series.counts[index] ?? 0) + 1;
    });
  }

  family(): MetricFamily {
    const samples = this.series.map((labels, { counts, sum, count }) => [
      ...this.bounds.map((bound, index) => ({
        suffix: "_bucket" as const,
        labels: { ...labels, le: String(bound) },
        value: counts[index] ?? 0,
      })),
      { suffix: "_bucket", labels: { ...labels, le: "+Inf" }, value: count },
      { suffix: "_sum", labels, value: sum },
      { suffix: "_count", labels, value: count },
    ]);
    return { ...this.about, type: "histogram", samples };
  }
}
