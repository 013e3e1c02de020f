/** What needs a keyring: keys, and hosts that show theirs. Checks of the suite nvmeBdev. */
import * as Keyring from "@effect-spdk/core/Keyring"
import type * as NvmeBdev from "@effect-spdk/core/NvmeBdev"
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { chmodSync, existsSync, statSync, writeFileSync } from "node:fs"
import { scratchFile } from "../support/engines.ts"
import { blockSize, type Check, failsWith, fresh, pattern, sameBytes } from "../support/harness.ts"
import { attachedBdev, exported, freePort, freshNqn } from "../support/nvmf.ts"

/** A key's text is in no message, whatever becomes of it. */
const isSilentAbout = (error: unknown, secret: string): void => {
  assert.notInclude(String(error), secret)
  assert.notInclude(JSON.stringify(error), secret)
}

export const authentication = (check: Check): void => {
  check("DH-HMAC-CHAP: the right key gets in, both ways; a wrong one and none do not", () =>
    Effect.gen(function* () {
      const made = yield* exported({ allowAnyHost: false })
      const hostnqn = freshNqn("host")
      const hostKey = yield* Keyring.add({ secret: yield* Keyring.generateDhchap() })
      const controllerKey = yield* Keyring.add({ secret: yield* Keyring.generateDhchap({ hash: "sha384" }) })
      const wrong = yield* Keyring.add({ secret: yield* Keyring.generateDhchap() })
      const host = yield* made.subsystem.addHost({
        nqn: hostnqn,
        dhchapKey: hostKey,
        dhchapControllerKey: controllerKey
      })
      assert.deepStrictEqual((yield* made.subsystem.info).hosts, [
        { nqn: hostnqn, dhchapKey: hostKey.name, dhchapControllerKey: controllerKey.name }
      ])
      const attach = (keys: Partial<NvmeBdev.AttachOptions>) => attachedBdev(made, { hostnqn, ...keys })
      yield* failsWith(attach({}), "IoFailed")
      yield* failsWith(attach({ dhchapKey: wrong }), "IoFailed")
      yield* failsWith(attach({ dhchapKey: hostKey, dhchapControllerKey: wrong }), "IoFailed")
      yield* Effect.scoped(
        Effect.gen(function* () {
          const { bdev } = yield* attach({ dhchapKey: hostKey, dhchapControllerKey: controllerKey })
          yield* bdev.writeBytes(0, pattern(blockSize, 1))
          sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 1), "by an authenticated host")
          assert.isTrue((yield* made.subsystem.qpairs).every((one) => one.auth?.state === "completed"))
        })
      )
      yield* host.setKeys({ dhchapKey: wrong })
      yield* failsWith(attach({ dhchapKey: hostKey }), "IoFailed")
      yield* Effect.scoped(attach({ dhchapKey: wrong }))
    })
  )

  check("TLS: the right key gets in, a wrong one and none do not", () =>
    Effect.gen(function* () {
      const made = yield* exported({ allowAnyHost: false })
      const hostnqn = freshNqn("host")
      const psk = yield* Keyring.add({ secret: yield* Keyring.generatePsk() })
      const wrong = yield* Keyring.add({ secret: yield* Keyring.generatePsk() })
      yield* made.subsystem.addHost({ nqn: hostnqn, psk })
      const port = yield* freePort
      yield* made.subsystem.addListener({ trsvcid: port, secureChannel: true })
      const attach = (keys: Partial<NvmeBdev.AttachOptions>) =>
        attachedBdev({ nqn: made.nqn, port }, { hostnqn, ...keys })
      yield* failsWith(attach({ psk: wrong }), "IoFailed")
      const { bdev } = yield* attach({ psk })
      yield* bdev.writeBytes(0, pattern(blockSize, 2))
      sameBytes(yield* bdev.readBytes(0, blockSize), pattern(blockSize, 2), "by TLS")
    })
  )
}

export const keyring = (check: Check): void => {
  check("keys: private files, gone with the scope; bad ones are refused without a word of what they are", () =>
    Effect.gen(function* () {
      const secret = yield* Keyring.generateDhchap()
      const inner = yield* Scope.make()
      const key = yield* Keyring.add({ name: fresh("key"), secret }).pipe(Scope.provide(inner))
      const info = (yield* Keyring.list).find((one) => one.name === key.name)
      const path = info?.path ?? ""
      assert.strictEqual(statSync(path).mode & 0o777, 0o600)
      yield* failsWith(Keyring.add({ name: key.name, secret }), "AlreadyExists")
      yield* Scope.close(inner, Exit.void)
      assert.isFalse(existsSync(path))
      assert.isFalse((yield* Keyring.list).some((one) => one.name === key.name))
      const text = Redacted.value(secret)
      for (const bad of ["", "secret", text.slice(0, -3), text.replace("DHHC-1:01", "DHHC-1:09"), `${text}x`]) {
        const reason = yield* failsWith(Keyring.add({ secret: Redacted.make(bad) }), "InvalidArgument", {
          field: "secret"
        })
        if (bad !== "" && bad !== "secret") isSilentAbout(reason, bad)
      }
      const flipped = text.replace(/:([A-Za-z0-9])/g, (_, letter: string) => `:${letter === "A" ? "B" : "A"}`)
      yield* failsWith(Keyring.add({ secret: Redacted.make(flipped) }), "InvalidArgument", { field: "secret" })
      const file = yield* scratchFile
      writeFileSync(file, text)
      chmodSync(file, 0o644)
      yield* failsWith(Keyring.addFile({ path: file }), "PermissionDenied")
      chmodSync(file, 0o600)
      yield* Effect.scoped(Keyring.addFile({ path: file }))
      assert.isTrue(existsSync(file))
      yield* failsWith(Keyring.addFile({ path: `${file}.missing` }), "NotFound")
      yield* failsWith(Keyring.addFile({ path: "" }), "InvalidArgument", { field: "path" })
    })
  )
}
