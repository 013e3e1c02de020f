/** Loads the addon, and gives the reason when no suitable addon is found. */
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import type { Addon } from "./AddonInterface.ts"
import { abi } from "./internal/abi.ts"
import { unusable } from "./internal/runtimes.ts"

export * from "./AddonInterface.ts"

export type LoadResult =
  | { readonly _tag: "Loaded"; readonly addon: Addon; readonly path: string }
  | { readonly _tag: "Missing"; readonly lookedFor: ReadonlyArray<string>; readonly reason: string }

/** The environment variable that names another build of the addon, for example an instrumented one. */
export const addonPathVariable = "EFFECT_SPDK_ADDON"

let loaded: LoadResult | undefined

/** Loads the addon once. When it is missing, libspdk is not usable here, and the result gives the reason. */
export const load = (): LoadResult => {
  loaded ??= find()
  return loaded
}

/**
 * This command works wherever the package is installed. `npx effect-spdk build` does the same in a project that depends
 * on core.
 */
const build = `node ${fileURLToPath(new URL("../addon/build.mjs", import.meta.url))}`

/** The package of an addon that was compiled elsewhere. `npm run pack-addon` of this project makes it. */
const prebuiltPackage = `@effect-spdk/native-${process.platform}-${process.arch}`

/** A package manager that isolates packages puts the addon's package beside the program, not beside this package. */
const prebuilt = (): string | undefined => {
  for (const from of [import.meta.url, process.argv[1], join(process.cwd(), "package.json")]) {
    try {
      if (from !== undefined) return createRequire(from).resolve(`${prebuiltPackage}/spdk.node`)
    } catch {
      // Not there, or no path: the next one.
    }
  }
  return undefined
}

const find = (): LoadResult => {
  // An empty variable is what shells make of one that is not set.
  const override = process.env[addonPathVariable] || undefined
  const built = fileURLToPath(new URL("../build/Release/spdk.node", import.meta.url))
  const path = override ?? (existsSync(built) ? built : prebuilt()) ?? built
  const lacks = unusable(process.versions)
  if (lacks !== undefined) return { _tag: "Missing", lookedFor: [path], reason: lacks }
  if (!existsSync(path)) {
    return override === undefined
      ? {
          _tag: "Missing",
          lookedFor: [built, prebuiltPackage],
          reason: `the addon is not built; where pkg-config finds SPDK 25.09 or later, this builds it: ${build}`
        }
      : { _tag: "Missing", lookedFor: [path], reason: `${addonPathVariable} names a file that does not exist` }
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

/** The message for an addon whose rings or functions differ from those that this package was compiled for. */
const stale = (addon: Addon, isNamed: boolean): string =>
  `the addon was built from other sources than this package (interface ${addon.abi ?? "without a hash"}, needed ${abi}); ` +
  (isNamed ? `rebuild it, or unset ${addonPathVariable}` : `this rebuilds it: ${build}`)
