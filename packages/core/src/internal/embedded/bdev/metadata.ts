/** Metadata beside the blocks: SPDK's malloc and null bdevs can have it, those of the embedded engine cannot. */
import { errnoFault, invalidParams, type RpcFault } from "../rpc/table.ts"
import { EINVAL } from "../queue/status.ts"

/** SPDK's answer to what makes no sense, and a refusal of what this engine does not have; undefined when neither is asked for. */
export const refusedMetadata = (params: {
  readonly md_size?: number | undefined
  readonly dif_type?: number | undefined
}): RpcFault | undefined => {
  const { dif_type: difType = 0, md_size: size = 0 } = params
  if (![0, 8, 16, 32, 64, 128].includes(size)) return errnoFault(-EINVAL)
  if (size !== 0) return invalidParams("md_size: the embedded engine has no bdevs with metadata")
  if (difType !== 0) return invalidParams("dif_type: the embedded engine has no bdevs with metadata")
  return undefined
}
