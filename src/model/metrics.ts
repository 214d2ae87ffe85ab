/** Figures for monitoring, as Prometheus means them. */

/** One value with its labels; of a histogram also `le`, and the names' ends `_bucket`, `_sum`, `_count`. */
export interface MetricSample {
  /** Behind the family's name. */
  suffix?: "_bucket" | "_sum" | "_count";
  labels: Record<string, string>;
  value: number;
}

/** All values of one name. */
export interface MetricFamily {
  name: string;
  /** One sentence. */
  help: string;
  type: "counter" | "gauge" | "histogram";
  samples: MetricSample[];
}
