import { suite as badInput } from "./suites/blobBadInput.ts"
import { suite as interruption } from "./suites/blobInterruption.ts"
import { suite as model } from "./suites/blobModel.ts"
import { suite as stress } from "./suites/blobStress.ts"
import { suite as trouble } from "./suites/blobTrouble.ts"
import { withDriver } from "./support/blobs.ts"
import { embedded } from "./support/engines.ts"

embedded("portable blob", withDriver("portable", { "bad input": badInput, interruption, stress, model, trouble }))
