/**
 * The Identify Controller data structure: NVMe Base specification 2.1, section 5.1.13.2.1.
 */
import {
  array,
  ascii,
  bytesField,
  type DecodedOf,
  flags,
  identifier,
  ranges,
  struct,
  u128,
  u16,
  u32,
  u8,
  utf8
} from "./struct.ts"

/** Bytes of every structure that Identify answers. */
export const identifyBytes = 4096

const powerState = struct("power state", 32, {
  /** MP. In units of 10 mW, or of 0.1 mW with `fineScale`. */
  maxPower: u16(0),
  flags: flags(u8(3), {
    /** MXPS */
    fineScale: 0,
    /** NOPS: the controller does no I/O in it. */
    nonOperational: 1
  }),
  /** ENLAT */
  entryLatencyMicros: u32(4),
  /** EXLAT */
  exitLatencyMicros: u32(8),
  /** RRT: smaller is better. */
  relativeReadThroughput: u8(12),
  relativeReadLatency: u8(13),
  relativeWriteThroughput: u8(14),
  relativeWriteLatency: u8(15),
  idlePower: u16(16),
  activePower: u16(20)
})

export const identifyController = struct("the identify data of the controller", identifyBytes, {
  /** VID */
  pciVendorId: u16(0),
  /** SSVID */
  pciSubsystemVendorId: u16(2),
  /** SN */
  serialNumber: ascii(4, 20),
  /** MN */
  modelNumber: ascii(24, 40),
  /** FR */
  firmwareRevision: ascii(64, 8),
  /** RAB, in commands, as a power of two. */
  recommendedArbitrationBurst: u8(72),
  /** IEEE, 3 bytes, the least significant one first. */
  ieeeOui: bytesField(73, 3),
  /** CMIC */
  multiPath: flags(u8(76), { multiplePorts: 0, multipleControllers: 1, sriov: 2, anaReporting: 3 }),
  /** MDTS: a power of two in units of the smallest memory page (CAP.MPSMIN); 0 is no limit. */
  maxDataTransfer: u8(77),
  /** CNTLID */
  controllerId: u16(78),
  /** VER, as the register VS: major, minor and tertiary from the top byte on. */
  version: u32(80),
  /** RTD3R */
  resumeLatencyMicros: u32(84),
  /** RTD3E */
  entryLatencyMicros: u32(88),
  /** OAES: notices the controller can send. */
  asyncEvents: flags(u32(92), {
    namespaceAttribute: 8,
    firmwareActivation: 9,
    anaChange: 11,
    predictableLatency: 12,
    lbaStatus: 13,
    enduranceGroup: 14,
    normalShutdown: 15,
    zoneDescriptor: 27,
    discoveryLogChange: 31
  }),
  /** CTRATT */
  attributes: flags(u32(96), {
    hostId128: 0,
    nonOperationalPermissive: 1,
    nvmSets: 2,
    readRecoveryLevels: 3,
    enduranceGroups: 4,
    predictableLatency: 5,
    /** TBKAS: any command keeps the connection alive. */
    trafficBasedKeepAlive: 6,
    namespaceGranularity: 7,
    submissionQueueAssociations: 8,
    uuidList: 9,
    multiDomain: 10,
    fixedCapacity: 11,
    variableCapacity: 12,
    deleteEnduranceGroup: 13,
    deleteNvmSet: 14,
    extendedLbaFormats: 15,
    flexibleDataPlacement: 19
  }),
  /** RRLS */
  readRecoveryLevels: u16(100),
  /** CNTRLTYPE: 1 I/O, 2 discovery, 3 administrative; 0 by controllers that do not tell. */
  controllerType: u8(111),
  /** FGUID */
  fruGuid: identifier(112, 16),
  /** CRDT1 to CRDT3, in units of 100 ms. */
  commandRetryDelays: array(3, u16(128)),
  /** OACS */
  adminCommands: flags(u16(256), {
    security: 0,
    formatNvm: 1,
    firmware: 2,
    namespaceManagement: 3,
    deviceSelfTest: 4,
    directives: 5,
    nvmeMi: 6,
    virtualization: 7,
    doorbellBuffer: 8,
    getLbaStatus: 9,
    lockdown: 10
  }),
  /** ACL, from 0: how many aborts may be outstanding. */
  abortLimit: u8(258),
  /** AERL, from 0: how many asynchronous event requests may be outstanding. */
  asyncEventLimit: u8(259),
  /** FRMW */
  firmwareUpdates: ranges(u8(260), {
    firstSlotReadOnly: [0, 1],
    slots: [1, 3],
    activationWithoutReset: [4, 1],
    multipleUpdateDetection: [5, 1]
  }),
  /** LPA */
  logPages: flags(u8(261), {
    healthPerNamespace: 0,
    commandEffects: 1,
    /** Offsets and lengths above 16 KiB. */
    extendedData: 2,
    telemetry: 3,
    persistentEvents: 4,
    supportedLogPages: 5,
    telemetryDataArea4: 6
  }),
  /** ELPE, from 0. */
  errorLogEntries: u8(262),
  /** NPSS, from 0. */
  powerStates: u8(263),
  /** AVSCC */
  adminVendorFormat: u8(264),
  /** APSTA */
  autonomousPowerStates: u8(265),
  /** WCTEMP */
  warningTemperatureKelvin: u16(266),
  /** CCTEMP */
  criticalTemperatureKelvin: u16(268),
  /** MTFA, in units of 100 ms. */
  maxFirmwareActivationTime: u16(270),
  /** HMPRE and HMMIN, in units of 4 KiB. */
  hostMemoryPreferred: u32(272),
  hostMemoryMinimum: u32(276),
  /** TNVMCAP */
  totalCapacityBytes: u128(280),
  /** UNVMCAP */
  unallocatedCapacityBytes: u128(296),
  /** RPMBS */
  replayProtectedMemory: u32(312),
  /** EDSTT */
  extendedSelfTestMinutes: u16(316),
  /** DSTO */
  selfTestOptions: u8(318),
  /** FWUG, in units of 4 KiB. */
  firmwareGranularity: u8(319),
  /** KAS, in units of 100 ms; 0: no keep-alive. */
  keepAliveGranularity: u16(320),
  /** HCTMA */
  hostThermalManagement: u16(322),
  /** MNTMT and MXTMT */
  minThermalKelvin: u16(324),
  maxThermalKelvin: u16(326),
  /** SANICAP */
  sanitize: flags(u32(328), { cryptoErase: 0, blockErase: 1, overwrite: 2 }),
  /** HMMINDS and HMMAXD */
  hostMemoryMinDescriptor: u32(332),
  hostMemoryMaxDescriptors: u16(336),
  /** NSETIDMAX */
  maxNvmSetId: u16(338),
  /** ENDGIDMAX */
  maxEnduranceGroupId: u16(340),
  /** ANATT */
  anaTransitionSeconds: u8(342),
  /** ANACAP */
  anaCapabilities: flags(u8(343), {
    optimized: 0,
    nonOptimized: 1,
    inaccessible: 2,
    persistentLoss: 3,
    change: 4,
    groupIdStable: 6,
    groupIdInCommands: 7
  }),
  /** ANAGRPMAX */
  maxAnaGroupId: u32(344),
  /** NANAGRPID */
  anaGroups: u32(348),
  /** PELS, in units of 64 KiB. */
  persistentEventLogSize: u32(352),
  domainId: u16(356),
  /** SQES and CQES: sizes of queue entries, as powers of two. */
  submissionEntry: ranges(u8(512), { required: [0, 4], maximum: [4, 4] }),
  completionEntry: ranges(u8(513), { required: [0, 4], maximum: [4, 4] }),
  /** MAXCMD: commands that one queue may hold; 0 when the controller does not tell. */
  maxCommands: u16(514),
  /** NN: the highest namespace id, when `maxAllowedNamespaces` is 0 the number of namespaces too. */
  maxNamespaceId: u32(516),
  /** ONCS */
  nvmCommands: flags(u16(520), {
    compare: 0,
    writeUncorrectable: 1,
    datasetManagement: 2,
    writeZeroes: 3,
    /** Save and select of features. */
    saveFeatures: 4,
    reservations: 5,
    timestamp: 6,
    verify: 7,
    copy: 8
  }),
  /** FUSES */
  fusedCompareAndWrite: flags(u16(522), { supported: 0 }),
  /** FNA */
  format: flags(u8(524), { allNamespaces: 0, eraseAllNamespaces: 1, cryptoErase: 2 }),
  /** VWC. `flushAll`: 2 no, 3 yes, whether a flush of all namespaces is known. */
  volatileWriteCache: ranges(u8(525), { present: [0, 1], flushAll: [1, 2] }),
  /** AWUN and AWUPF, in blocks, from 0. */
  atomicWriteBlocks: u16(526),
  atomicWritePowerFailBlocks: u16(528),
  /** NVSCC */
  ioVendorFormat: u8(530),
  /** NWPC */
  namespaceWriteProtection: u8(531),
  /** ACWU, in blocks, from 0. */
  atomicCompareWriteBlocks: u16(532),
  /** OCFS: bit n for copy descriptor format n. */
  copyFormats: u16(534),
  /** SGLS */
  sgls: ranges(u32(536), {
    support: [0, 2],
    keyed: [2, 1],
    bitBucket: [16, 1],
    metadataPointer: [17, 1],
    oversized: [18, 1],
    metadataAddress: [19, 1],
    offset: [20, 1],
    transport: [21, 1]
  }),
  /** MNAN */
  maxAllowedNamespaces: u32(540),
  /** SUBNQN */
  subnqn: utf8(768, 256),
  /** IOCCSZ: of a command capsule of an I/O queue, in units of 16 bytes. */
  ioCommandCapsuleSize: u32(1792),
  /** IORCSZ, in units of 16 bytes. */
  ioResponseCapsuleSize: u32(1796),
  /** ICDOFF, in units of 16 bytes. */
  inCapsuleDataOffset: u16(1800),
  /** FCATT */
  fabricsAttributes: flags(u8(1802), { staticControllers: 0 }),
  /** MSDBD: SGL descriptors that a capsule may carry. */
  maxSglDescriptors: u8(1803),
  /** OFCS */
  fabricsCommands: flags(u16(1804), { disconnect: 0 }),
  /** PSD. The first `powerStates` + 1 mean something. */
  powerStateDescriptors: array(32, powerState.at(2048))
})

export type IdentifyController = DecodedOf<typeof identifyController>
