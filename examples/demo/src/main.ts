/**
 * Writes real files to a block device, reads them back on a second handle, and compares. `npm run demo -- --help`
 * tells the options.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Bdev from "@effect-spdk/core/Bdev"
import * as Spdk from "@effect-spdk/core/Spdk"
import * as ByteSize from "effect/ByteSize"
import * as Argument from "effect/cli/Argument"
import * as CliError from "effect/cli/CliError"
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { fileURLToPath } from "node:url"
import { DemoError } from "./DemoError.ts"
import * as Device from "./Device.ts"
import * as Progress from "./Progress.ts"
import * as Report from "./Report.ts"
import * as Sources from "./Sources.ts"
import * as Transfer from "./Transfer.ts"

/** From examples/dist/demo/src. */
const repository = fileURLToPath(new URL("../../../..", import.meta.url))

/** npm runs scripts in the repository and tells here where the command was given. */
const workingFolder = process.env["INIT_CWD"] ?? process.cwd()

const ownSources = ["README.md", "packages", "examples", "test", "bench", "scripts"]
const isDerived = (folder: string): boolean => /^(node_modules|dist|build(-.*)?)$/.test(folder)

const chosenSources = (paths: ReadonlyArray<string>) =>
  paths.length > 0
    ? Sources.collect(paths, { base: workingFolder, skip: () => false })
    : Sources.collect(ownSources, { base: repository, skip: isDerived })

/** Runs one phase with its progress bar and says how long it took. */
const phase = Effect.fnUntraced(function* <A, E, R>(
  name: string,
  bytes: number,
  work: (progress: Progress.Progress) => Effect.Effect<A, E, R>
) {
  const started = performance.now()
  const result = yield* Effect.scoped(Effect.flatMap(Progress.make(name, bytes), work))
  return [result, { name, bytes, millis: performance.now() - started } satisfies Report.Phase] as const
})

const transfer = Effect.fn("demo.transfer")(function* (layout: Sources.Layout, options: { readonly corrupt: boolean }) {
  const spdk = yield* Spdk.Spdk
  const bdev = yield* Bdev.Bdev
  yield* Console.log(`engine: ${spdk.description}`)
  yield* Console.log(
    `device: ${bdev.name}, ${bdev.info.productName}, ${bdev.sizeBytes} bytes in blocks of ${bdev.blockSize}`
  )
  if (bdev.sizeBytes < layout.neededBytes) {
    const message = `the device is too small: it holds ${bdev.sizeBytes} bytes, the files need ${layout.neededBytes}`
    return yield* new DemoError({ message })
  }
  yield* Console.log(`files:  ${layout.files.length}, ${layout.totalBytes} bytes`)
  const [written, writing] = yield* phase("write", layout.totalBytes, (progress) =>
    Transfer.writeAll(bdev, layout.files, progress)
  )
  if (options.corrupt) {
    const victim = yield* Transfer.corrupt(bdev, layout.files)
    yield* Console.log(`flipped one byte of ${victim.label} on the device`)
  }
  const [verified, reading] = yield* phase("read and verify", layout.totalBytes, (progress) =>
    Transfer.verifyAll(bdev.name, written, progress)
  )
  yield* Console.log(`\n${Report.filesTable(verified)}\n${Report.phasesTable([writing, reading])}\n`)
  const damaged = verified.filter((file) => !Transfer.isIntact(file))
  const first = damaged[0]
  if (first !== undefined) {
    const message = `${damaged.length} of ${verified.length} files came back different, first ${first.label}`
    return yield* new DemoError({ message })
  }
  yield* Console.log(`${verified.length} files, ${layout.totalBytes} bytes verified`)
})

const parseSize = (text: string) => ByteSize.fromString(/^\d+$/.test(text) ? `${text} B` : text)

const sizeFlag = Flag.String("size").pipe(
  Flag.withDescription('Size of the device, such as "64 MiB" (default: what the files need)'),
  Flag.filterMap(parseSize, () => 'a size such as "64 MiB", or a number of bytes'),
  Flag.optional
)

const command = Command.make(
  "demo",
  {
    paths: Argument.String("path").pipe(
      Argument.withDescription("File or folder to write (default: this repository's own sources)"),
      Argument.variadic()
    ),
    morePaths: Flag.String("path").pipe(Flag.withDescription("The same, repeatable"), Flag.atLeast(0)),
    engine: Flag.Literals("engine", Device.engines).pipe(
      Flag.withDescription("auto takes libspdk where it is installed"),
      Flag.withDefault("auto")
    ),
    bdev: Flag.Literals("bdev", Device.bdevs).pipe(
      Flag.withDescription("A file in a temporary folder, or memory"),
      Flag.withDefault("file")
    ),
    size: sizeFlag,
    corrupt: Flag.Boolean("corrupt").pipe(
      Flag.withDescription("Flip one byte on the device before reading, to see that it is noticed"),
      Flag.withDefault(false)
    )
  },
  Effect.fn("demo")(function* ({ bdev, corrupt, engine, morePaths, paths, size }) {
    const layout = Sources.place(yield* chosenSources([...paths, ...morePaths]), Device.blockSizeBytes)
    const sizeBytes = Option.match(size, {
      onNone: () => Math.max(layout.neededBytes, Device.blockSizeBytes),
      onSome: ByteSize.toNumberUnsafe
    })
    yield* transfer(layout, { corrupt }).pipe(Effect.provide(Device.layer({ engine, bdev, sizeBytes })))
  })
).pipe(Command.withDescription("Write files to a block device, read them back, verify their SHA-256"))

Command.run(command, { version: "0.1.0" }).pipe(
  Effect.mapError((error) => (CliError.isCliError(error) ? error : new DemoError({ message: error.message }))),
  Effect.tapError((error) => (CliError.isCliError(error) ? Effect.void : Console.error(`error: ${error.message}`))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
