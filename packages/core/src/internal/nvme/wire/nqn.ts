/**
 * NVMe qualified names: NVMe Base specification 2.1, section 4.7, as far as SPDK checks it too, so that what passes here passes
 * there. Two rules go further, as the specification does: a month is 01 to 12, and no label of the domain is empty.
 */

/** Of the well-known discovery subsystem. */
export const discoveryNqn = "nqn.2014-08.org.nvmexpress.discovery"

const uuidPrefix = "nqn.2014-08.org.nvmexpress:uuid:"
const maxNqnBytes = 223
/** "nqn.yyyy-mm" */
const minNqnBytes = 11
const maxLabelCharacters = 63

/** The form with dashes, in any case. */
export const isUuid = (uuid: unknown): uuid is string =>
  typeof uuid === "string" && /^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$/.test(uuid)

/**
 * The rule that the name of a subsystem breaks which somebody else has made: it fits into the Connect command. Targets have any
 * names, Linux's those of directories.
 */
export const dialedNqnRule = (nqn: unknown): string | undefined => {
  if (typeof nqn !== "string") return "is not a string"
  if (/\p{Surrogate}/u.test(nqn)) return "is not UTF-8: it has half of a surrogate pair"
  if (nqn.includes("\0")) return "contains a NUL character"
  const bytes = Buffer.byteLength(nqn)
  if (bytes === 0) return "is empty"
  return bytes > maxNqnBytes ? `is longer than ${maxNqnBytes} bytes: it has ${bytes}` : undefined
}

/** The rule that the name breaks, as the end of a sentence about it; undefined when it breaks none. */
export const nqnRule = (nqn: unknown): string | undefined => {
  if (typeof nqn !== "string") return "is not a string"
  if (/\p{Surrogate}/u.test(nqn)) return "is not UTF-8: it has half of a surrogate pair"
  if (nqn.includes("\0")) return "contains a NUL character"
  const bytes = Buffer.byteLength(nqn)
  if (bytes > maxNqnBytes) return `is longer than ${maxNqnBytes} bytes: it has ${bytes}`
  if (bytes < minNqnBytes) return `is shorter than the ${minNqnBytes} bytes of "nqn.yyyy-mm"`
  if (nqn === discoveryNqn) return undefined
  if (nqn.startsWith(uuidPrefix)) {
    return isUuid(nqn.slice(uuidPrefix.length)) ? undefined : `has no UUID behind "${uuidPrefix}"`
  }
  if (!nqn.startsWith("nqn.")) return 'does not start with "nqn."'
  const date = /^nqn\.\d{4}-(\d{2})\./.exec(nqn)
  if (date === null) return 'has no date of the form "yyyy-mm." behind "nqn."'
  const month = Number(date[1])
  if (month < 1 || month > 12) return `has the month ${date[1]} in its date`
  const colon = nqn.indexOf(":")
  if (colon < 0) return 'has no ":" behind the domain'
  if (colon === nqn.length - 1) return 'has no name behind the ":"'
  return domainRule(nqn.slice(12, colon))
}

const domainRule = (domain: string): string | undefined => {
  for (const label of domain.split(".")) {
    if (label === "") return "has an empty label in its domain"
    if (label.length > maxLabelCharacters)
      return `has a label of more than ${maxLabelCharacters} characters in its domain`
    if (!/^[a-zA-Z]/.test(label)) return `has the label "${label}" in its domain, which does not start with a letter`
    if (!/^[a-zA-Z0-9-]*$/.test(label)) {
      return `has the label "${label}" in its domain, which has other characters than letters, digits and dashes`
    }
    if (label.endsWith("-")) return `has the label "${label}" in its domain, which ends in a dash`
  }
  return undefined
}

/** The name that a host or subsystem with this UUID has. */
export const nqnOfUuid = (uuid: string): string => `${uuidPrefix}${uuid}`
