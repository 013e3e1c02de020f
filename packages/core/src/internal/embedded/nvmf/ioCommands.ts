/**
 * The commands of I/O queues: checked here, done by the namespace's bdev.
 */
import { type DeviceOpcode, Opcode } from "@effect-spdk/native/Layout"
import { getU32, getU64Number } from "../../nvme/wire/bytes.ts"
import { IoOpcode } from "../../nvme/wire/command.ts"
import { dnr, Status, statusOfWord } from "../../nvme/wire/nvmeStatus.ts"
import type { IoStatus } from "../queue/status.ts"
import type { Connection } from "./connection.ts"
import type { Controller } from "./controller.ts"
import { Phase, type NvmfRequest } from "./request.ts"
import type { Namespace } from "./target.ts"

const invalidField = Status.InvalidField | dnr
const deallocateBit = 4
/** Of dword 12, Force Unit Access: the data is durable when the command ends. */
const fuaBit = 0x4000_0000
const rangeBytes = 16

/** Submits the command; or it is answered with the status that comes back. */
export const startIo = (connection: Connection, controller: Controller, request: NvmfRequest): number | undefined => {
  if ((request.flags & 3) !== 0) return Status.AbortedMissingFused | dnr
  const namespace = controller.namespace(request.nsid)
  if (namespace === undefined || controller.unseen.has(request.nsid)) return Status.InvalidNamespaceOrFormat | dnr
  const anaStatus = controller.anaStatus(namespace)
  if (anaStatus !== Status.Success) return anaStatus
  switch (request.command) {
    case IoOpcode.Read:
      return startRead(connection, controller, request, namespace)
    case IoOpcode.Write:
    case IoOpcode.Compare:
      return startTransfer(connection, controller, request, namespace)
    case IoOpcode.WriteZeroes: {
      const status = range(request, namespace, blocksOf(request))
      if (status !== Status.Success) return status
      if (!namespace.bdev.supports("write_zeroes")) return Status.InvalidOpcode | dnr
      return submit(connection, request, namespace, Opcode.WriteZeroes)
    }
    case IoOpcode.Flush:
      if (!namespace.bdev.supports("flush")) return Status.Success
      request.firstBlock = 0
      request.lengthBlocks = namespace.bdev.numBlocks
      return submit(connection, request, namespace, Opcode.Flush)
    case IoOpcode.DatasetManagement:
      return startDatasetManagement(connection, request, namespace)
    default:
      return Status.InvalidOpcode | dnr
  }
}

/** Write, and compare, which reads into a copy of its own. */
const startTransfer = (
  connection: Connection,
  controller: Controller,
  request: NvmfRequest,
  namespace: Namespace
): number | undefined => {
  const status = transferStatus(controller, request, namespace)
  if (status !== Status.Success) return status
  const lengthBytes = request.lengthBlocks * namespace.bdev.blockSize
  if (request.receivedBytes !== lengthBytes) return Status.DataSglLengthInvalid | dnr
  const memory = request.buffer
  if (memory === undefined) return Status.DataSglLengthInvalid | dnr
  request.memory = memory
  request.memoryOffset = 0
  if (request.command === IoOpcode.Write) return submit(connection, request, namespace, Opcode.Write)
  // What the host has sent makes room for what is there.
  request.expected = memory.bytes.subarray(lengthBytes, 2 * lengthBytes)
  request.expected.set(memory.bytes.subarray(0, lengthBytes))
  return submit(connection, request, namespace, Opcode.Read)
}

const blocksOf = (request: NvmfRequest): number => (request.dword12 & 0xffff) + 1

/** Also sets the length. */
const range = (request: NvmfRequest, { bdev }: Namespace, lengthBlocks: number): number => {
  request.lengthBlocks = lengthBlocks
  return request.firstBlock <= bdev.numBlocks - lengthBlocks ? Status.Success : Status.LbaOutOfRange | dnr
}

const transferStatus = (controller: Controller, request: NvmfRequest, namespace: Namespace): number => {
  const status = range(request, namespace, blocksOf(request))
  if (status !== Status.Success) return status
  const lengthBytes = request.lengthBlocks * namespace.bdev.blockSize
  if (lengthBytes > controller.transport.max_io_size) return invalidField
  return lengthBytes > request.sglLength ? Status.DataSglLengthInvalid | dnr : Status.Success
}

const startRead = (
  connection: Connection,
  controller: Controller,
  request: NvmfRequest,
  namespace: Namespace
): number | undefined => {
  const status = transferStatus(controller, request, namespace)
  if (status !== Status.Success) return status
  const lengthBytes = request.lengthBlocks * namespace.bdev.blockSize
  if (namespace.bdev.isImmediate) {
    // Straight into what is sent.
    const block = connection.reserveData(lengthBytes)
    request.memory = block
    request.memoryOffset = block.filledBytes + connection.format.dataOffset
    request.blockAt = block.filledBytes
  } else {
    request.neededBytes = lengthBytes
    if (!connection.hasMemory(request)) return undefined
    request.memory = request.buffer
    request.memoryOffset = 0
  }
  return submit(connection, request, namespace, Opcode.Read)
}

const submit = (
  connection: Connection,
  request: NvmfRequest,
  namespace: Namespace,
  opcode: DeviceOpcode
): undefined => {
  request.phase = Phase.Running
  request.opcode = opcode
  request.offsetBlocks = request.firstBlock
  request.owner = connection
  request.namespace = namespace
  request.segments = undefined
  namespace.inFlight++
  namespace.bdev.reactor.spent += (request.lengthBlocks * namespace.bdev.blockSize) >>> 14
  namespace.channel.submit(request)
  return undefined
}

const startDatasetManagement = (
  connection: Connection,
  request: NvmfRequest,
  namespace: Namespace
): number | undefined => {
  const count = (request.dword10 & 0xff) + 1
  const bytes = request.buffer?.bytes
  if (bytes === undefined || request.receivedBytes < count * rangeBytes) return Status.DataSglLengthInvalid | dnr
  const ranges: Array<readonly [number, number]> = []
  for (let at = 0; at < count * rangeBytes; at += rangeBytes) {
    const lengthBlocks = getU32(bytes, at + 4)
    const first = getU64Number(bytes, at + 8)
    if (first > namespace.bdev.numBlocks - lengthBlocks) return Status.LbaOutOfRange | dnr
    if (lengthBlocks > 0) ranges.push([first, lengthBlocks])
  }
  // The other attributes are hints.
  if ((request.dword11 & deallocateBit) === 0 || ranges.length === 0) return Status.Success
  if (!namespace.bdev.supports("unmap")) return Status.InvalidOpcode | dnr
  request.blockRanges = ranges
  request.rangeIndex = 0
  nextRange(connection, request, namespace)
  return undefined
}

const nextRange = (connection: Connection, request: NvmfRequest, namespace: Namespace): void => {
  const [first, lengthBlocks] = request.blockRanges?.[request.rangeIndex++] ?? [0, 0]
  request.firstBlock = first
  request.lengthBlocks = lengthBlocks
  submit(connection, request, namespace, Opcode.Unmap)
}

/** The status of an I/O that the bdev has ended; undefined when there is more to do. */
export const ioStatus = (connection: Connection, request: NvmfRequest, namespace: Namespace): number | undefined => {
  const { status } = request
  if (status.errno !== 0) return statusOf(request, status)
  if (request.blockRanges !== undefined && request.rangeIndex < request.blockRanges.length) {
    nextRange(connection, request, namespace)
    return undefined
  }
  if (isStillVolatile(request, namespace)) return submit(connection, request, namespace, Opcode.Flush)
  if (request.expected !== undefined) {
    const read = request.memory?.bytes.subarray(0, request.expected.length)
    if (read === undefined || Buffer.compare(read, request.expected) !== 0) return Status.CompareFailure | dnr
  }
  return Status.Success
}

/** Whether FUA asks for a flush, which bdevs do not know as a property of a write. */
const isStillVolatile = ({ command, dword12, opcode }: NvmfRequest, { bdev }: Namespace): boolean =>
  (command === IoOpcode.Write || command === IoOpcode.WriteZeroes) &&
  opcode !== Opcode.Flush &&
  (dword12 & fuaBit) !== 0 &&
  bdev.supports("flush")

const statusOf = (request: NvmfRequest, { errno, nvme }: IoStatus): number => {
  const known = statusOfWord(nvme)
  if (known !== undefined) return known
  // ENOSPC, ENOMEM
  if (errno === -28) return Status.CapacityExceeded
  if (errno === -12) return Status.CommandInterrupted
  return request.command === IoOpcode.Write ? Status.WriteFault : Status.InternalDeviceError
}
