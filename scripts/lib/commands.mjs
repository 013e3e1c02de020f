/** What each npm script does, once its set-up is done. */
import { build, check, demo, docs, format } from "./develop.mjs"
import { bench } from "./bench.mjs"
import { lint } from "./lint.mjs"
import { packAddon } from "./packAddon.mjs"
import { simulate } from "./simulate.mjs"
import { test, testLong } from "./test.mjs"

const commands = {
  demo,
  test,
  "test:long": testLong,
  bench,
  build,
  lint,
  format,
  check,
  docs,
  simulate,
  "pack-addon": packAddon
}

/** Runs one command with its arguments and resolves with the exit code. */
export const main = async ([name, ...args]) => {
  const command = Object.hasOwn(commands, name ?? "") ? commands[name] : undefined
  if (command === undefined) {
    console.error(`usage: npm run ${Object.keys(commands).join("|")}`)
    return 2
  }
  return await command(args)
}
