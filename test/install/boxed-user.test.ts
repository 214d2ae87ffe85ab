/** Setup and a VM in a box without rights, as an ordinary user, every call traced. */
import { describe } from "vitest";
import { boxedSetup } from "./boxed.ts";

describe("as an ordinary user", () => boxedSetup(65534, true));
