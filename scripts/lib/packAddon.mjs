/**
 * `npm run pack-addon [-- FOLDER]`: the addon of this machine as a package, `@effect-spdk/native-linux-x64`, for machines that have no
 * compiler and no SPDK. Programs find it beside `@effect-spdk/native`.
 */
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, resolve } from "node:path"
import { exec, inRoot, node, npm } from "./exec.mjs"
import { setUp } from "./setup.mjs"

const native = inRoot("packages", "native")

/** From the archives of SPDK and DPDK; on their shared libraries where there are none. */
const compile = async () => {
  for (const link of ["static", "shared"]) {
    const flags = link === "static" ? ["--static"] : []
    const args = [...flags, "--werror", `--out=build-package/${link}`]
    const { code, output } = await node(join(native, "addon", "build.mjs"), args, { capture: true })
    if (code === 0) return { link, addon: output.trim().split("\n").at(-1) }
    const lacksArchives = link === "static" && output.includes("no archives (lib*.a)")
    if (!lacksArchives) {
      console.error(output.trim())
      return undefined
    }
    console.log(/no archives.*/.exec(output)?.[0])
  }
}

/** The shared libraries that the system has to have. */
const needs = async (addon) => {
  const { output } = await exec("ldd", [addon], { capture: true })
  const names = [...output.matchAll(/^\s*(\S+)\.so/gm)].map(([, name]) => name)
  return names.filter((name) => !/^(linux-vdso|.*\/ld-linux|lib(c|m|dl|rt|gcc_s|stdc\+\+|pthread))\b/.test(name))
}

export const packAddon = async ([folder = "."]) => {
  await setUp({ projects: ["packages/native"], embeddedSuffices: true })
  const compiled = await compile()
  if (compiled === undefined) return 1
  const { addon, link } = compiled
  const { code, output: spdk } = await exec(
    process.execPath,
    ["-e", "process.stdout.write(require(process.argv[1]).version)", addon],
    { capture: true }
  )
  if (code !== 0) {
    console.error(spdk)
    return 1
  }
  const libraries = await needs(addon)
  const { license, version } = JSON.parse(readFileSync(join(native, "package.json"), "utf8"))
  const name = `@effect-spdk/native-${process.platform}-${process.arch}`
  const work = join(dirname(addon), "package")
  rmSync(work, { recursive: true, force: true })
  mkdirSync(work, { recursive: true })
  const inside = link === "static" ? `with ${spdk} inside` : `on the shared libraries of ${spdk}`
  writeFileSync(
    join(work, "package.json"),
    JSON.stringify(
      {
        name,
        version,
        description: `The libspdk addon of @effect-spdk/native, ${inside}`,
        license,
        os: [process.platform],
        cpu: [process.arch],
        libc: ["glibc"],
        main: "spdk.node",
        files: ["spdk.node", "LICENSE"]
      },
      undefined,
      2
    )
  )
  writeFileSync(
    join(work, "README.md"),
    `# ${name}\n\nThe libspdk addon of \`@effect-spdk/native\` ${version}, ${inside}. It needs of the system: ${libraries.join(", ")}.\n`
  )
  copyFileSync(addon, join(work, "spdk.node"))
  copyFileSync(inRoot("LICENSE"), join(work, "LICENSE"))
  mkdirSync(resolve(folder), { recursive: true })
  const packed = await npm(["pack", "--silent", "--pack-destination", resolve(folder)], { cwd: work, capture: true })
  if (packed.code !== 0) {
    console.error(packed.output)
    return packed.code
  }
  console.log(`${join(resolve(folder), packed.output.trim().split("\n").at(-1))}: ${inside}`)
  console.log(`machines that use it need these libraries: ${libraries.join(", ")}`)
  return 0
}
