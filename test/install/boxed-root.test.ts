/** Setup and a VM in a box without rights, as root. */
import { describe } from "vitest";
import { boxedSetup } from "./boxed.ts";

describe("as root without capabilities", () => boxedSetup(0, false));
