/** Light or dark: as the system has it, unless the user says otherwise. */
import { Store } from "./store.ts";

const PLACE = "vmsan.theme";

/** What is chosen. */
export type Theme = "system" | "light" | "dark";

const given = localStorage.getItem(PLACE);

/** The choice. */
export const theme = new Store<Theme>(given === "light" || given === "dark" ? given : "system");

function apply(): void {
  if (theme.value === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme.value;
}

theme.subscribe(() => {
  localStorage.setItem(PLACE, theme.value);
  apply();
});
apply();

/** Whether the page is dark now. */
export function isDark(): boolean {
  if (theme.value !== "system") return theme.value === "dark";
  return matchMedia("(prefers-color-scheme: dark)").matches;
}
