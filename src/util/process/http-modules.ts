/**
 * node:http and node:https without what an import of them loads: all that they export is looked at then, WebSocket among it,
 * which takes 35 ms of processor time and 14 MB for as long as the process lives.
 */
import type Http from "node:http";
import type Https from "node:https";

/** node:http, loaded now. */
export const httpModule = (): typeof Http => process.getBuiltinModule("node:http");

/** node:https, loaded now. */
export const httpsModule = (): typeof Https => process.getBuiltinModule("node:https");
