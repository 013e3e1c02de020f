/** What depends on the version of the SPDK that the addon was built for. */
import * as Addon from "@effect-spdk/native/Addon"
import * as Effect from "effect/Effect"
import { skipTest } from "./harness.ts"

/** The embedded engine answers in the words of SPDK 26.05, of which older versions do not know all: such tests are skipped. */
export const speaksAsEmbedded = Effect.suspend(() => {
  const found = Addon.load()
  const [, major = 0, minor = 0] = (/v(\d+)\.(\d+)/.exec(found._tag === "Loaded" ? found.addon.version : "") ?? []).map(
    Number
  )
  return major > 26 || (major === 26 && minor >= 5)
    ? Effect.void
    : skipTest("SPDK before 26.05 does not know all the fields that it has since, and the embedded engine")
})
