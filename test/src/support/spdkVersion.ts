/** What depends on the version of the SPDK that the addon was built for. */
import * as Addon from "@effect-spdk/native/Addon"
import * as Effect from "effect/Effect"
import { skipTest } from "./harness.ts"

/** Whether the SPDK of the addon is 26.05 or later. Without an addon nothing is older. */
const is2605 = (): boolean => {
  const found = Addon.load()
  if (found._tag === "Missing") return true
  const [major = 0, minor = 0] = (/v(\d+)\.(\d+)/.exec(found.addon.version) ?? []).slice(1).map(Number)
  return major > 26 || (major === 26 && minor >= 5)
}

/** Skips the test on an SPDK that is older than 26.05. */
const since2605 = (lacks: string): Effect.Effect<void> =>
  Effect.suspend(() => (is2605() ? Effect.void : skipTest(`SPDK before 26.05 ${lacks}`)))

/** Targets of this SPDK can leave commands out of what they offer. */
export const canMask = is2605

/** The embedded engine answers in the words of SPDK 26.05, of which older versions do not know all. */
export const speaksAsEmbedded = since2605("does not know all the fields that SPDK has since, and the embedded engine")

/** The functions with which the addon looks at the volumes under NVMe bdevs. */
export const watchesVolumes = since2605(
  "does not show the controllers under NVMe bdevs, so that nobody compares volumes"
)

/** `nvme_failure` of the error bdev. */
export const injectsStatus = since2605("has no error bdev that fails with an NVMe status")

/** `multipath_opts` of an attach. */
export const attachesWithPolicy = since2605("does not take the policy of several paths when it attaches")

/** Its target answers a compare that differs as a failure without a cause before. */
export const tellsMiscompare = since2605("does not say that a compare found a difference")

/** What the addon cuts large commands of NVMe namespaces by. */
export const readsLimits = since2605("does not read the limits of NVMe controllers")
