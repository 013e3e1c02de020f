/** Loads the addon, and says why when there is none that fits. */
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { fileURLToPath } from "node:url"
import type { Addon } from "./AddonInterface.ts"
import { abi } from "./internal/abi.ts"
import { unusable } from "./internal/runtimes.ts"

export * from "./AddonInterface.ts"

export type LoadResult =
  | { readonly _tag: "Loaded"; readonly addon: Addon; readonly path: string }
  | { readonly _tag: "Missing"; readonly lookedFor: ReadonlyArray<string>; readonly reason: string }

/** Environment variable that names another build of the addon, an instrumented one for example. */
export const addonPathVariable = "EFFECT_SPDK_ADDON"

let loaded: LoadResult | undefined

/** Loads the addon once. Missing means that libspdk cannot be used here, and says why. */
export const load = (): LoadResult => {
  loaded ??= find()
  return loaded
}

const builder = fileURLToPath(new URL("../addon/build.mjs", import.meta.url))

const find = (): LoadResult => {
  // An empty variable is what shells make of one that is not set.
  const override = process.env[addonPathVariable] || undefined
  const path = override ?? fileURLToPath(new URL("../build/Release/spdk.node", import.meta.url))
  const lacks = unusable(process.versions)
  if (lacks !== undefined) return { _tag: "Missing", lookedFor: [path], reason: lacks }
  if (!existsSync(path)) {
    return {
      _tag: "Missing",
      lookedFor: [path],
      reason:
        override === undefined
          ? `the addon is not built; where pkg-config finds SPDK 25.09 or later with shared libraries, this builds it: node ${builder}`
          : `${addonPathVariable} names a file that is not there`
    }
  }
  try {
    const addon = createRequire(import.meta.url)(path) as Addon
    if (addon.abi !== abi) return { _tag: "Missing", lookedFor: [path], reason: stale(addon, override !== undefined) }
    return { _tag: "Loaded", addon, path }
  } catch (error) {
    return {
      _tag: "Missing",
      lookedFor: [path],
      reason: `the addon does not load: ${error instanceof Error ? error.message : String(error)}`
    }
  }
}

/** Its rings or its functions are others than the ones that this package was compiled for. */
const stale = (addon: Addon, isNamed: boolean): string =>
  `the addon was built from other sources than this package (interface ${addon.abi ?? "without a hash"}, needed ${abi}); ` +
  (isNamed ? `build it anew, or unset ${addonPathVariable}` : `this builds it anew: node ${builder}`)
