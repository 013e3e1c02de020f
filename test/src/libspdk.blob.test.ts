import { suite as claims } from "./suites/blobClaims.ts"
import { suite as degraded } from "./suites/blobDegraded.ts"
import { suite as externals } from "./suites/blobExternals.ts"
import { suite as io } from "./suites/blobIo.ts"
import { suite as metadata } from "./suites/blobMetadata.ts"
import { suite as snapshots } from "./suites/blobSnapshots.ts"
import { suite as store } from "./suites/blobStore.ts"
import { withDriver } from "./support/blobs.ts"
import { libspdk } from "./support/engines.ts"

libspdk("blob", withDriver("libspdk", { store, io, metadata, snapshots, externals, degraded, claims }), {
  // SPDK writes a line for each refusal, and these suites are full of them.
  logLevel: "disabled"
})
