/**
 * Keeps files in a blobstore: stores them as blobs, reads them back through other handles, and compares. `npm run demo -- --help`
 * tells the options.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as ByteSize from "effect/ByteSize"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { deleteFiles, getFiles, listFiles, storeFiles } from "./commands.ts"
import { DemoError } from "./DemoError.ts"
import * as Device from "./Device.ts"
import * as Sources from "./Sources.ts"

/** From examples/dist/demo/src. */
const repository = fileURLToPath(new URL("../../../..", import.meta.url))

/** npm runs scripts in the repository and tells here where the command was given. */
const workingFolder = process.env["INIT_CWD"] ?? process.cwd()
const userPath = (path: string): string => resolve(workingFolder, path)

const ownSources = ["README.md", "packages", "examples", "test", "bench", "scripts"]
const isDerived = (folder: string): boolean => /^(node_modules|dist|build(-.*)?)$/.test(folder)

const chosenSources = (paths: ReadonlyArray<string>) =>
  paths.length > 0
    ? Sources.collect(paths, { base: workingFolder, skip: () => false })
    : Sources.collect(ownSources, { base: repository, skip: isDerived })

const parseSize = (text: string) => ByteSize.fromString(/^\d+$/.test(text) ? `${text} B` : text)

const flags = {
  paths: Argument.String("path").pipe(
    Argument.withDescription("File or folder to store (default: this repository's own sources)"),
    Argument.variadic()
  ),
  morePaths: Flag.String("path").pipe(Flag.withDescription("The same, repeatable"), Flag.atLeast(0)),
  device: Flag.String("device").pipe(
    Flag.withDescription("File that holds the blobstore, made when it is missing (default: one in a temporary folder)"),
    Flag.map(userPath),
    Flag.optional
  ),
  engine: Flag.Literals("engine", Device.engines).pipe(
    Flag.withDescription("auto takes libspdk where it is installed"),
    Flag.withDefault("auto")
  ),
  bdev: Flag.Literals("bdev", Device.bdevs).pipe(
    Flag.withDescription("A file, or memory, which is gone at the end"),
    Flag.withDefault("file")
  ),
  size: Flag.String("size").pipe(
    Flag.withDescription(
      'Size of a new device, or what an older one grows to, such as "64 MiB" (default: what the files need)'
    ),
    Flag.filterMap(parseSize, () => 'a size such as "64 MiB", or a number of bytes'),
    Flag.map(ByteSize.toNumberUnsafe),
    Flag.optional
  ),
  list: Flag.Boolean("list").pipe(Flag.withDescription("List what the device holds"), Flag.withDefault(false)),
  get: Flag.String("get").pipe(Flag.withDescription("Get this file back, repeatable; see --out"), Flag.atLeast(0)),
  out: Flag.String("out").pipe(
    Flag.withDescription("Folder that --get writes to (default: where the command is given)"),
    Flag.withDefault("."),
    Flag.map(userPath)
  ),
  delete: Flag.String("delete").pipe(
    Flag.withDescription("Delete this file from the device, repeatable"),
    Flag.atLeast(0)
  ),
  corrupt: Flag.Boolean("corrupt").pipe(
    Flag.withDescription("Flip one byte on the device before reading, to see that it is noticed"),
    Flag.withDefault(false)
  )
}

const command = Command.make(
  "demo",
  flags,
  Effect.fn("demo")(function* (given) {
    const device = Option.getOrUndefined(given.device)
    const size = Option.getOrUndefined(given.size)
    const paths = [...given.paths, ...given.morePaths]
    const onDevice = [given.list, given.get.length > 0, given.delete.length > 0].filter(Boolean).length
    if (onDevice > 1 || (onDevice === 1 && (paths.length > 0 || given.corrupt))) {
      return yield* new DemoError({ message: "--list, --get, --delete and paths to store do not go together" })
    }
    if (device !== undefined && given.bdev === "malloc") {
      return yield* new DemoError({ message: "--device is a file: it does not go together with --bdev malloc" })
    }
    if (onDevice === 0) {
      const sources = yield* chosenSources(paths)
      const { bdev, corrupt, engine } = given
      return yield* storeFiles(sources, { engine, bdev, device, sizeBytes: size, corrupt })
    }
    if (device === undefined) {
      return yield* new DemoError({ message: "--list, --get and --delete need --device" })
    }
    const place = yield* Device.existing(device, size)
    const work = given.list
      ? listFiles
      : given.get.length > 0
        ? getFiles(given.get, given.out)
        : deleteFiles(given.delete)
    yield* Effect.provide(work, Device.layer(given.engine, place))
  })
).pipe(Command.withDescription("Store files in a blobstore, read them back, verify their SHA-256"))

Command.run(command, { version: "0.1.0" }).pipe(
  Effect.mapError((error) => (CliError.isCliError(error) ? error : new DemoError({ message: error.message }))),
  Effect.tapError((error) => (CliError.isCliError(error) ? Effect.void : Console.error(`error: ${error.message}`))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
