import { suite as badInput } from "./suites/blobBadInput.ts"
import { suite as interruption } from "./suites/blobInterruption.ts"
import { suite as model } from "./suites/blobModel.ts"
import { suite as stress } from "./suites/blobStress.ts"
import { suite as trouble } from "./suites/blobTrouble.ts"
import { withDriver } from "./support/blobs.ts"
import { libspdk } from "./support/engines.ts"

libspdk("portable blob", withDriver("portable", { "bad input": badInput, interruption, stress, model, trouble }), {
  // SPDK writes a line for each refusal, and these suites are full of them.
  logLevel: "disabled"
})
