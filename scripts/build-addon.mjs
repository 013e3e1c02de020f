// In the package, so that whoever installs it can build the addon too. Here warnings are errors.
process.argv.push("--werror")
await import("../packages/native/addon/build.mjs")
