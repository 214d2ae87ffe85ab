/** Paths as clients of envd write them. */
import type { GuestUser } from "./users.ts";

/** An absolute path; relative ones and `~` are below the user's home. */
export function absolute(path: string, { home }: GuestUser): string {
  if (path === "" || path === "~") return home;
  if (path.startsWith("~/")) return `${home}/${path.slice(2)}`.replaceAll(/\/+/g, "/");
  return path.startsWith("/") ? path : `${home}/${path}`.replaceAll(/\/+/g, "/");
}
