/** The xattrs of an open blob. */
import { invalid, type SpdkError } from "@effect-spdk/core/SpdkError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { BlobXattrs, LookError, ReleasedError, RemoveXattrError, SetXattrError, XattrValue } from "../Blob.ts"
import type { OpenBlob } from "./driver.ts"
import { metadataReasons, only, onlyLooks, permissionIsReadOnly } from "./reasons.ts"
import { nameRule, valueOf } from "./xattrs.ts"

interface Owner {
  readonly resource: string
  /** Fails with Released. */
  readonly open: (operation: string) => Effect.Effect<OpenBlob, ReleasedError>
  readonly change: <A>(operation: string, call: Effect.Effect<A, SpdkError>) => Effect.Effect<A, SpdkError>
}

export const makeXattrs = (owner: Owner): BlobXattrs => {
  const { resource } = owner
  const checked = (operation: string, name: string) => {
    const rule = nameRule(name)
    return rule === undefined ? Effect.void : Effect.fail(invalid(operation, "name", rule, name, resource))
  }
  const get = (name: string): Effect.Effect<Option.Option<Uint8Array>, LookError> => {
    const operation = "Blob.xattrs.get"
    return checked(operation, name).pipe(
      Effect.andThen(owner.open(operation)),
      Effect.flatMap((open) => onlyLooks(open.xattrs)),
      Effect.map((xattrs) => Option.map(Option.fromUndefinedOr(xattrs.get(name)), (bytes) => bytes.slice()))
    )
  }
  const set = (name: string, value: XattrValue): Effect.Effect<void, SetXattrError> => {
    const place = { operation: "Blob.xattrs.set", resource }
    return checked(place.operation, name).pipe(
      Effect.andThen(Effect.suspend(() => Effect.fromResult(valueOf(name, value, place.operation, "value", resource)))),
      Effect.flatMap((bytes) =>
        Effect.flatMap(owner.open(place.operation), (open) => owner.change(place.operation, open.setXattr(name, bytes)))
      ),
      permissionIsReadOnly(place),
      only(place, [...metadataReasons, "Busy", "InvalidArgument", "ReadOnly"])
    )
  }
  const remove = (name: string): Effect.Effect<void, RemoveXattrError> => {
    const place = { operation: "Blob.xattrs.remove", resource }
    return checked(place.operation, name).pipe(
      Effect.andThen(owner.open(place.operation)),
      Effect.flatMap((open) => owner.change(place.operation, open.removeXattr(name))),
      permissionIsReadOnly(place),
      only(place, [...metadataReasons, "Busy", "InvalidArgument", "NotFound", "ReadOnly"])
    )
  }
  const entries = Effect.flatMap(owner.open("Blob.xattrs.entries"), (open) =>
    Effect.map(
      onlyLooks(open.xattrs),
      (xattrs) => new Map(Array.from(xattrs, ([name, value]) => [name, value.slice()] as const))
    )
  )
  return {
    get,
    set,
    remove,
    entries,
    schema: (name, schema) => {
      const codec = Schema.fromJsonString(Schema.toCodecJson(schema))
      return {
        get: Effect.flatMap(get(name), (value) =>
          Option.isNone(value)
            ? Effect.succeedNone
            : Effect.asSome(Schema.decodeUnknownEffect(codec)(new TextDecoder().decode(value.value)))
        ),
        set: (value) => Effect.flatMap(Schema.encodeUnknownEffect(codec)(value), (text) => set(name, text))
      }
    }
  }
}
