/** The OpenAPI 3.1 document, written from the table of routes and the schemas that validate. */
import * as z from "zod";
import { packageVersion } from "../../util/package.ts";
import { routes } from "./routes.ts";
import type { Route } from "./route.ts";

const ERROR = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["code", "message"],
      properties: {
        code: { type: "string", description: "Stable, for programs: ERR_AREA_WHAT" },
        message: { type: "string" },
        why: { type: "string" },
        fix: { type: "string" },
        details: { type: "object" },
      },
    },
  },
};

const STATUSES: Record<string, string> = {
  "400": "What was asked for is wrong",
  "401": "No key, or none that is valid",
  "403": "Not through this key",
  "404": "There is none, or none that the key may see",
  "409": "It is in the wrong state",
  "429": "Too many requests; see Retry-After",
  "500": "It failed",
};

function schemaOf(schema: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
  return rest;
}

/** The success of a route. */
function success({ answers, reply }: Route): Record<string, unknown> {
  switch (answers) {
    case "nothing":
      return { "204": { description: "Done" } };
    case "bytes":
      return {
        "200": { description: "Bytes", content: { "application/octet-stream": { schema: {} } } },
      };
    case "lines":
      return {
        "200": {
          description: "Lines of JSON: progress, at the end a result or an error",
          content: { "application/x-ndjson": { schema: { type: "object" } } },
        },
      };
    case "json":
      return {
        "200": {
          description: "Done",
          content: {
            "application/json": {
              schema: reply === undefined ? { type: "object" } : schemaOf(reply),
            },
          },
        },
      };
  }
}

/** A route's path as OpenAPI writes it. */
function templated(path: string): string {
  return path.replaceAll(/:(\w+)/g, "{$1}").replace("*", "{rest}");
}

function operation(route: Route): Record<string, unknown> {
  const path = templated(route.path);
  const parameters = [
    ...[...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
      name,
      in: "path",
      required: true,
      schema: { type: "string" },
    })),
    ...Object.entries(route.query ?? {}).map(([name, description]) => ({
      name,
      in: "query",
      description,
      schema: { type: "string" },
    })),
  ];
  const failures = Object.entries(STATUSES).map(([status, description]) => [
    status,
    {
      description,
      content: { "application/json": { schema: { $ref: "#/components/schemas/Error" } } },
    },
  ]);
  return {
    operationId: `${route.method.toLowerCase()}${path.replaceAll(/[^a-zA-Z0-9]+(\w?)/g, (_, c: string) => c.toUpperCase())}`,
    summary: route.admin === true ? `${route.summary} (admin keys)` : route.summary,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(route.body === undefined
      ? {}
      : { requestBody: { content: { "application/json": { schema: schemaOf(route.body) } } } }),
    responses: { ...success(route), ...Object.fromEntries(failures) },
  };
}

/** The document. */
export function openApiDocument(): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    (paths[templated(route.path)] ??= {})[route.method.toLowerCase()] = operation(route);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "vmsan",
      version: packageVersion(),
      description: "microVMs of a `vmsan serve`; see docs/serve.md.",
    },
    security: [{ key: [] }, { header: [] }],
    paths,
    components: {
      securitySchemes: {
        key: { type: "http", scheme: "bearer" },
        header: { type: "apiKey", in: "header", name: "X-API-Key" },
      },
      schemas: { Error: ERROR },
    },
  };
}
