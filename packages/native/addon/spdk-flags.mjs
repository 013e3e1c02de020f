// Prints the compiler or linker flags of the installed SPDK, one per line, for binding.gyp. What pkg-config says, with
// two additions: modules register themselves by constructor, so the linker must keep libraries that nothing names; and
// `spdk_syslibs` carries what the static parts need (isa-l, io_uring), without which the addon links and fails to load.
import { execFileSync } from "node:child_process"
import { existsSync } from "node:fs"
import { join } from "node:path"

const required = [
  "spdk_event",
  "spdk_event_bdev",
  "spdk_event_accel",
  "spdk_event_sock",
  "spdk_event_scheduler",
  "spdk_event_iobuf",
  "spdk_event_vmd",
  "spdk_event_keyring",
  "spdk_event_nvmf",
  "spdk_bdev_modules",
  "spdk_blob",
  "spdk_blob_bdev",
  "spdk_accel_modules",
  "spdk_sock_modules",
  "spdk_scheduler_modules",
  "spdk_keyring_modules",
  "spdk_env_dpdk",
  "spdk_dpdklibs"
]
// Subsystems that an SPDK may have been built without. Not iscsi: its pools alone take more memory than a laptop gives.
const optional = ["spdk_event_nbd", "spdk_event_ublk", "spdk_event_vhost_blk"]

const pkgConfig = (...args) =>
  execFileSync("pkg-config", args, { encoding: "utf8" }).trim().split(/\s+/).filter(Boolean)
const exists = (name) => {
  try {
    pkgConfig("--exists", name)
    return true
  } catch {
    return false
  }
}
const packages = [...required, ...optional.filter(exists)]

if (process.argv[2] === "--cflags") {
  // Headers of others as system headers: our warnings are about our files.
  // Relative to node-gyp's build folder: an absolute path may hold spaces, and make would take it apart.
  const flags = [...pkgConfig("--cflags", ...packages), "-I../node_modules/node-addon-api"]
  console.log(flags.map((flag) => flag.replace(/^-I/, "-isystem")).join("\n"))
} else if (process.argv[3] === "static") {
  const flags = pkgConfig("--libs", "--static", ...packages, "spdk_syslibs")
  const folders = flags.filter((flag) => flag.startsWith("-L")).map((flag) => flag.slice(2))
  const names = [...new Set(flags.filter((flag) => flag.startsWith("-l")).map((flag) => flag.slice(2)))]
  const archiveOf = (name) => folders.map((folder) => join(folder, `lib${name}.a`)).find((path) => existsSync(path))
  // Those of SPDK, of DPDK, and what they bring: modules and drivers register themselves, so whole. What the system has stays shared.
  const isOurs = (name) => /^(spdk_|rte_|isal)/.test(name)
  const absent = names.filter((name) => isOurs(name) && archiveOf(name) === undefined)
  if (absent.length > 0) {
    console.error(`no archives (lib*.a) of ${absent.join(", ")} in ${folders.join(", ")}`)
    process.exit(1)
  }
  const registering = names.filter((name) => /^(spdk_|rte_)/.test(name))
  const others = names.filter((name) => !registering.includes(name))
  console.log(
    [
      "-Wl,--whole-archive",
      ...registering.map(archiveOf),
      "-Wl,--no-whole-archive",
      ...others.map((name) => archiveOf(isOurs(name) ? name : "") ?? `-l${name}`),
      // Two addons in one process would otherwise share what one of them has in it.
      "-Wl,--exclude-libs,ALL",
      "-Wl,-Bsymbolic",
      ...folders.map((folder) => `-L${folder}`)
    ].join("\n")
  )
} else {
  const libraries = pkgConfig("--libs", ...packages)
  // SPDK's files name no libdir. Where its libraries were linked from they are loaded from, in the same order, so that an SPDK
  // outside of the loader's folders works without LD_LIBRARY_PATH, and is not taken for another that lies in them.
  const folders = libraries.filter((flag) => flag.startsWith("-L")).map((flag) => flag.slice(2))
  console.log(
    [
      "-Wl,--no-as-needed",
      ...libraries,
      "-Wl,--as-needed",
      ...pkgConfig("--libs", "--static", "spdk_syslibs"),
      // As DT_RPATH, which also counts for what those libraries need in their turn: DPDK's do not say where theirs are.
      "-Wl,--disable-new-dtags",
      ...new Set(folders.map((folder) => `-Wl,-rpath,${folder}`))
    ].join("\n")
  )
}
