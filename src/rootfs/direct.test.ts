import { diskBuilderContract } from "./contract.ts";
import { directBuilder } from "./direct.ts";

// Writes the image itself: needs no privileges for owners and devices.
diskBuilderContract(directBuilder, { full: true, exactTimes: true, indexes: true });
