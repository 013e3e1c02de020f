/** `npm run lint`: the linter, the format, unused files and exports, and the packages as they would be published. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inRoot, node } from "./exec.mjs"
import { pnpm, setUp, workspaceFolders } from "./setup.mjs"
import { runSteps } from "./steps.mjs"
import { toolEntry } from "./tools.mjs"

const published = () =>
  workspaceFolders().filter((folder) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")).private !== true)

/** Packs one package as `pnpm publish` would, and lets publint and are-the-types-wrong look at the tarball. */
const inspectPackage = async (folder) => {
  const target = mkdtempSync(join(tmpdir(), "effect-spdk-pack-"))
  try {
    const packed = await pnpm(["pack", "--pack-destination", target], { cwd: folder, capture: true })
    if (packed.code !== 0) {
      console.error(packed.output)
      return packed
    }
    const tarball = join(target, readdirSync(target)[0])
    const publint = await node(toolEntry("publint"), ["--strict", tarball])
    if (publint.code !== 0) return publint
    return await node(toolEntry("@arethetypeswrong/cli", "attw"), [
      tarball,
      "--profile",
      "esm-only",
      "--format",
      "ascii"
    ])
  } finally {
    rmSync(target, { recursive: true, force: true })
  }
}

export const lint = async () => {
  await setUp({ projects: ["."], embeddedSuffices: true })
  return await runSteps("lint", [
    { name: "oxlint", run: () => node(toolEntry("oxlint"), ["--deny-warnings"]) },
    { name: "oxfmt --check", run: () => node(toolEntry("oxfmt"), ["--check"]) },
    { name: "knip", run: () => node(toolEntry("knip")) },
    ...published().map((folder) => ({
      name: `published form of ${folder.slice(inRoot().length + 1)}`,
      run: () => inspectPackage(folder)
    }))
  ])
}
