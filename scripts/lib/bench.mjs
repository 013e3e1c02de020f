/** `npm run bench`. */
import { inRoot, node } from "./exec.mjs"
import { setUp } from "./setup.mjs"

export const bench = async (args) => {
  await setUp({ projects: ["bench"] })
  return (await node(inRoot("bench", "dist", "main.js"), args)).code
}
