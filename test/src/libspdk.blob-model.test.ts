import * as Spdk from "@effect-spdk/core/Spdk"
import { suiteOfAll } from "./suites/blobModel.ts"
import { libspdk, memoryMiB } from "./support/engines.ts"

// SPDK writes a line for each refusal, and random commands are full of them.
const logLevel = "disabled"

libspdk(
  "blob model",
  (name, layer) => suiteOfAll(name, layer, Spdk.layerEmbedded({ name: "contract", memoryMiB, logLevel })),
  { logLevel }
)
