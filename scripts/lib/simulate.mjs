/** `npm run simulate`. */
import { inRoot, node } from "./exec.mjs"
import { setUp } from "./setup.mjs"

export const simulate = async (args) => {
  await setUp({ projects: ["test"], embeddedSuffices: true })
  return (await node(inRoot("test", "dist", "simulate", "main.js"), args)).code
}
