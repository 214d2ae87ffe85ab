/** Signed URLs of files: they carry neither headers nor a host name, only proof of the sandbox's token. */
import { createHash, timingSafeEqual } from "node:crypto";
import { E2bError } from "../errors.ts";

/** Whether a query is a signed one. */
export function isSigned(query: URLSearchParams): boolean {
  return query.has("signature");
}

/** The signature of a request, as clients make it. */
function signatureOf(query: URLSearchParams, operation: "read" | "write", token: string): Buffer {
  const expiration = query.get("signature_expiration");
  const parts = [query.get("path") ?? "", operation, query.get("username") ?? "", token];
  if (expiration !== null) parts.push(expiration);
  const digest = createHash("sha256").update(parts.join(":")).digest("base64");
  return Buffer.from(`v1_${digest.replace(/=+$/, "")}`);
}

/** Whether a query is signed with this token; the time limit apart. */
export function isSignedWith(
  query: URLSearchParams,
  operation: "read" | "write",
  token: string,
): boolean {
  const given = Buffer.from(query.get("signature") ?? "");
  const right = signatureOf(query, operation, token);
  return given.length === right.length && timingSafeEqual(given, right);
}

/** @throws unauthenticated once its time is over */
export function checkExpiration(query: URLSearchParams): void {
  const expiration = query.get("signature_expiration");
  if (expiration === null) return;
  if (/^\d{1,12}$/.test(expiration) && Number(expiration) * 1000 > Date.now()) return;
  throw new E2bError("unauthenticated", "signature is already expired");
}
