/** What spans are told. */

/** What is known of a span; what is undefined is left out. */
export type SpanAttributes = Record<string, string | number | boolean | undefined>;
