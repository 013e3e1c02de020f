/** Attaches where the system has no more file descriptors, and once more where it has. Plain JavaScript: Node 20 runs no TypeScript. */
import { load } from "@effect-spdk/native/Addon"
import { closeSync, openSync } from "node:fs"

const result = load()
if (result._tag === "Missing") throw new Error(result.reason)
const { addon } = result
const attempt = () => {
  try {
    addon.attach(() => {})
    return "attached"
  } catch (error) {
    return error.message
  }
}

const taken = []
try {
  for (;;) taken.push(openSync("/dev/null"))
} catch (error) {
  if (error.code !== "EMFILE") throw error
}
const without = attempt()
// Nothing of the one that failed is in the way.
const called = (() => {
  try {
    addon.sharesProcessor()
    return "called"
  } catch (error) {
    return error.message
  }
})()
for (const fd of taken) closeSync(fd)
console.log(JSON.stringify([without, called, attempt(), attempt()]))
