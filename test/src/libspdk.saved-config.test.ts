import { suite } from "./suites/savedConfig.ts"
import { embedded, libspdk } from "./support/engines.ts"
import { libspdkMissing } from "./support/libspdkMissing.ts"

libspdk("saved configuration", suite)
// With libspdk in a child.
if (libspdkMissing === undefined) embedded("saved configuration", suite)
