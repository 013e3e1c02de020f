/**
 * The commands of fabrics: connect, properties, disconnect.
 */
import { getU64 } from "../../nvme/wire/bytes.ts"
import { Sqe } from "../../nvme/wire/command.ts"
import {
  connectDataBytes,
  ConnectField,
  connectFaultDword0,
  decodeConnect,
  decodeConnectData,
  dynamicControllerId,
  FabricsType,
  Property,
  propertyOffsetOf,
  propertySizeOf
} from "../../nvme/wire/fabrics.ts"
import { dnr, Status } from "../../nvme/wire/nvmeStatus.ts"
import type { Connection } from "./connection.ts"
import { Controller } from "./controller.ts"

export interface FabricsAnswer {
  readonly status: number
  readonly dword0?: number
  readonly dword1?: number
}

/** May be tried again, as with SPDK: a target that starts has its subsystems and hosts a moment later. */
const badField = (field: number, isInData: boolean): FabricsAnswer => ({
  status: Status.ConnectInvalidParameters,
  dword0: connectFaultDword0(field, isInData)
})

/** `data` is what the capsule brought. */
export const fabricsCommand = (connection: Connection, sqe: Uint8Array, data: Uint8Array): FabricsAnswer => {
  const type = sqe[Sqe.fabricsType]
  const { controller } = connection
  if (controller === undefined) {
    return type === FabricsType.Connect ? connect(connection, sqe, data) : { status: Status.CommandSequenceError | dnr }
  }
  if (type === FabricsType.Disconnect && connection.queueId !== 0) {
    connection.closeSoon()
    return { status: Status.Success }
  }
  if (connection.queueId !== 0) return { status: Status.InvalidOpcode | dnr }
  switch (type) {
    case FabricsType.PropertyGet:
      return getProperty(controller, sqe)
    case FabricsType.PropertySet:
      return setProperty(controller, sqe)
    case FabricsType.Connect:
      return { status: Status.CommandSequenceError | dnr }
    default:
      // Authentication: no host has a key here.
      return { status: Status.InvalidOpcode | dnr }
  }
}

const connect = (connection: Connection, sqe: Uint8Array, bytes: Uint8Array): FabricsAnswer => {
  const { target, transport } = connection
  const command = decodeConnect(sqe, 0)
  if (bytes.length < connectDataBytes) return { status: Status.InvalidField | dnr }
  const data = decodeConnectData(bytes)
  if (typeof data === "number") return badField(data, true)
  const subsystem = target.subsystems.get(data.subsystemNqn)
  if (subsystem === undefined) return badField(ConnectField.subsystemNqn, true)
  const { isDiscovery } = subsystem.options
  const listener = subsystem.listenerAt(connection.address)
  if (!subsystem.allows(data.hostNqn) || (listener === undefined && !isDiscovery)) {
    return { status: Status.ConnectInvalidHost }
  }
  if (command.recordFormat !== 0) return { status: Status.ConnectIncompatibleFormat | dnr }
  const maxQueueSize = command.queueId === 0 ? transport.max_aq_depth : transport.max_queue_depth
  if (command.queueSize === 0 || command.queueSize >= maxQueueSize) return badField(ConnectField.queueSize, false)
  if (command.queueId === 0) {
    if (data.controllerId !== dynamicControllerId) return badField(ConnectField.controllerId, true)
    const id = subsystem.takeControllerId()
    if (id === undefined) return { status: Status.ConnectControllerBusy }
    const controller = new Controller({
      target,
      transport,
      subsystem,
      listener,
      id,
      hostNqn: data.hostNqn,
      hostId: data.hostId,
      admin: connection,
      keepAliveMillis: command.keepAliveMillis
    })
    connection.enable(controller, 0, command.queueSize)
    return { status: Status.Success, dword0: id }
  }
  const controller = subsystem.controllers.get(data.controllerId)
  // Somebody else's controller is none.
  if (controller === undefined || controller.hostNqn !== data.hostNqn) return badField(ConnectField.controllerId, true)
  if (Buffer.compare(controller.hostId, data.hostId) !== 0) return badField(ConnectField.hostId, true)
  if (isDiscovery || !controller.isEnabled || controller.ioQueues.has(command.queueId)) {
    return badField(ConnectField.queueId, false)
  }
  if (((controller.cc >>> 16) & 0xff) !== 0x46) return badField(ConnectField.queueId, false)
  if (command.queueId > transport.max_io_qpairs_per_ctrlr) return { status: Status.InvalidQueueId | dnr }
  // ANA states belong to the place where the controller was connected to.
  if (subsystem.options.anaReporting && controller.listener !== listener) return badField(ConnectField.queueId, false)
  controller.ioQueues.set(command.queueId, connection)
  connection.enable(controller, command.queueId, command.queueSize)
  return { status: Status.Success, dword0: controller.id }
}

const invalidParameter: FabricsAnswer = { status: Status.ConnectInvalidParameters | dnr }

/** CAP is the only one of 8 bytes. */
const getProperty = (controller: Controller, sqe: Uint8Array): FabricsAnswer => {
  const size = propertySizeOf(sqe, 0)
  const offset = propertyOffsetOf(sqe, 0)
  if (size > 1) return invalidParameter
  const isUpperHalf = offset === Property.Cap + 4
  const value = controller.property(isUpperHalf ? Property.Cap : offset)
  if (value === undefined || (size === 1 && offset !== Property.Cap)) return invalidParameter
  const low = Number(value & 0xffffffffn)
  const high = Number(value >> 32n)
  return { status: Status.Success, dword0: isUpperHalf ? high : low, dword1: size === 1 ? high : 0 }
}

const setProperty = (controller: Controller, sqe: Uint8Array): FabricsAnswer => {
  if (propertySizeOf(sqe, 0) !== 0) return invalidParameter
  const value = Number(getU64(sqe, Sqe.cdw12) & 0xffffffffn)
  switch (propertyOffsetOf(sqe, 0)) {
    case Property.Cc:
      return controller.setConfiguration(value) ? { status: Status.Success } : invalidParameter
    case Property.Csts:
      // Nothing of it can be cleared.
      return { status: Status.Success }
    default:
      return invalidParameter
  }
}
