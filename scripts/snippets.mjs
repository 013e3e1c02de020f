/**
 * Compiles the examples in docstrings, READMEs and docs. One without imports is a part of a program: it may use every public module by its
 * name, stands inside of a generator, and may use the handles that `given` declares.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { inRoot, node } from "./lib/exec.mjs"
import { toolEntry } from "./lib/tools.mjs"

const packages = ["core", "blobstore", "nvmf"]
const sourcesOf = (name) =>
  readdirSync(inRoot("packages", name, "src"))
    .filter((file) => file.endsWith(".ts"))
    .map((file) => `packages/${name}/src/${file}`)
const pages = [
  "README.md",
  "CONTRIBUTING.md",
  ...readdirSync(inRoot("docs")).map((name) => `docs/${name}`),
  ...[...packages, "native"].flatMap((name) => [`packages/${name}/README.md`, `packages/${name}/AGENTS.md`])
]

// Programs that are marked are those of examples/, which compiles them.
const fence = /^(?<lead>[ *]*)```ts\n(?<code>[^]*?)^[ *]*```$/gm
const isMarked = (text, index) => text.slice(0, index).trimEnd().endsWith("-->")

const snippetsOf = (file) => {
  let text
  try {
    text = readFileSync(inRoot(...file.split("/")), "utf8")
  } catch {
    return []
  }
  return [...text.matchAll(fence)]
    .filter((match) => !isMarked(text, match.index))
    .map(({ groups, index }) => ({
      file,
      line: text.slice(0, index).split("\n").length + 1,
      code: groups.code
        .split("\n")
        .map((line) => (groups.lead.includes("*") ? line.replace(/^ *\* ?/, "") : line))
        .join("\n")
    }))
}

const modules = [
  ...packages.flatMap((name) =>
    sourcesOf(name)
      .map((file) => basename(file, ".ts"))
      .filter((module) => module !== "index")
      .map((module) => [module, `@effect-spdk/${name}/${module}`])
  ),
  ...["Console", "Duration", "Effect", "Layer", "Schedule", "Stream"].map((module) => [module, `effect/${module}`])
]
const given = {
  bdev: "Bdev.Bdev",
  blob: "Blob.Blob",
  store: "Blobstore.Blobstore",
  controller: "Nvme.Controller",
  target: "NvmfTarget.NvmfTarget",
  photo: "Stream.Stream<Uint8Array>"
}

/** A program as it stands, or a part of one. */
const programOf = ({ code }) => {
  if (/^import /m.test(code)) return `${code}\nexport {}\n`
  const names = modules.filter(([module]) => new RegExp(`\\b${module}\\.`).test(code) || module === "Effect")
  const handles = Object.entries(given).filter(
    ([name]) => new RegExp(`\\b${name}\\b`).test(code) && !new RegExp(`const ${name}\\b`).test(code)
  )
  const types = new Set(handles.map(([, type]) => type.split(".")[0]))
  const needed = modules.filter(([module]) => names.some(([name]) => name === module) || types.has(module))
  return [
    ...needed.map(([module, path]) => `import * as ${module} from "${path}"`),
    ...handles.map(([name, type]) => `declare const ${name}: ${type}`),
    "export const part = Effect.gen(function* () {",
    code,
    "})"
  ].join("\n")
}

const folder = inRoot("examples", "node_modules", ".snippets")
rmSync(folder, { recursive: true, force: true })
mkdirSync(folder, { recursive: true })
const snippets = [...pages, ...packages.flatMap(sourcesOf)].flatMap(snippetsOf)
const files = snippets.map((snippet, index) => {
  const name = `snippet-${index}.ts`
  writeFileSync(join(folder, name), programOf(snippet))
  return name
})
writeFileSync(
  join(folder, "tsconfig.json"),
  JSON.stringify({
    extends: inRoot("tsconfig.base.json"),
    compilerOptions: {
      noEmit: true,
      composite: false,
      incremental: false,
      declaration: false,
      declarationMap: false,
      isolatedDeclarations: false,
      noUnusedLocals: false,
      rootDir: "/",
      types: ["node"],
      typeRoots: [inRoot("node_modules", "@types")]
    },
    files
  })
)
const { code, output } = await node(toolEntry("typescript", "tsc"), ["-p", folder, "--pretty", "false"], {
  capture: true
})
for (const line of output.split("\n").filter(Boolean)) {
  const found = /snippet-(\d+)\.ts\((\d+),/.exec(line)
  const snippet = found === null ? undefined : snippets[Number(found[1])]
  console.error(snippet === undefined ? line : `${snippet.file}:${snippet.line}: ${line.slice(line.indexOf("error"))}`)
}
if (code === 0) {
  console.log(`${snippets.length} examples compile`)
  rmSync(folder, { recursive: true, force: true })
} else process.exitCode = 1
