#!/usr/bin/env node
/**
 * Behind every npm script of this repository: checks Node, sets up what the command needs, runs it.
 * Needs nothing but Node and npm. This file itself parses on old Nodes, so that the version check can speak.
 */
const needed = [20, 19]
const [major, minor] = process.versions.node.split(".").map(Number)

if (major < needed[0] || (major === needed[0] && minor < needed[1])) {
  console.error(
    `effect-spdk needs Node.js ${needed.join(".")} or later; this is ${process.version} (${process.execPath})`
  )
  process.exitCode = 1
} else {
  import("./lib/commands.mjs")
    .then(({ main }) => main(process.argv.slice(2)))
    .then(
      (code) => {
        process.exitCode = code
      },
      (error) => {
        console.error(error instanceof Error && error.name === "SetupError" ? error.message : error)
        process.exitCode = error?.exitCode ?? 1
      }
    )
}
