/** `npm run demo|build|format|check`. */
import { inRoot, node, SetupError } from "./exec.mjs"
import { setUp, setUpTools, typescript } from "./setup.mjs"
import { runSteps } from "./steps.mjs"
import { toolEntry } from "./tools.mjs"

/** Scripts that write files which are checked in, and compare them with `--check`. The layout is generated from compiled TypeScript. */
const beforeCompiling = ["generate-abi.mjs"]
const afterCompiling = ["generate-rpc.mjs", "generate-layout.mjs"]

export const generatedSteps = [...beforeCompiling, ...afterCompiling].map((name) => ({
  name: `${name} --check`,
  run: () => node(inRoot("scripts", name), ["--check"])
}))

const run = async (generators) => {
  for (const name of generators) {
    const { code } = await node(inRoot("scripts", name))
    if (code !== 0) throw new SetupError(`scripts/${name} failed (exit ${code})`)
  }
}

const generate = async () => {
  await run(beforeCompiling)
  const compiled = await typescript(["packages/native"])
  if (compiled.code !== 0) throw new SetupError("packages/native does not compile, see above")
  await run(afterCompiling)
}

export const demo = async (args) => {
  await setUp({ projects: ["examples"], embeddedSuffices: true })
  return (await node(inRoot("examples", "dist", "demo", "src", "main.js"), args)).code
}

export const build = async () => {
  await setUp({ projects: ["."], generate })
  return 0
}

export const format = async (args) => {
  await setUpTools()
  return (await node(toolEntry("oxfmt"), args)).code
}

/** The API reference, from the docstrings, into docs/api. TypeDoc reads TypeScript 5, which docs/ has for itself. */
export const docs = async (args) => {
  await setUp({ projects: ["packages/blobstore", "packages/nvmf"], embeddedSuffices: true })
  const typedoc = toolEntry("typedoc", "typedoc", inRoot("docs"))
  const { code } = await node(typedoc, ["--options", inRoot("docs", "typedoc.json"), ...args])
  if (code === 0) console.log(`the API reference: ${inRoot("docs", "api", "index.html")}`)
  return code
}

/** Types, generated files, and the programs in the documentation. */
export const check = async () => {
  await setUp({ projects: ["packages/core"] })
  return await runSteps("check", [
    { name: "types", run: () => typescript(["."]) },
    {
      name: "types of the tests",
      run: () => node(toolEntry("typescript", "tsc"), ["-p", inRoot("tsconfig.tests.json")])
    },
    ...generatedSteps,
    { name: "readme.mjs --check", run: () => node(inRoot("scripts", "readme.mjs"), ["--check"]) },
    { name: "examples in docstrings and pages", run: () => node(inRoot("scripts", "snippets.mjs")) }
  ])
}
