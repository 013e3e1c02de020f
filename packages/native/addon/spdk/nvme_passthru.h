// What a command that JavaScript has written may say. The rest of it, and some commands, belong to the driver.
#pragma once

#include <cstdint>

#include "spdk_headers.h"

namespace effect_spdk {

// 0, or why it is not sent. Clears what the driver fills in: where data is, and the command's number. `length_bytes`: of the
// memory that comes with it.
int CheckAdminCommand(spdk_nvme_cmd* command, uint32_t length_bytes);
// The same for the I/O command set, on that namespace and with blocks of that size.
int CheckIoCommand(spdk_nvme_cmd* command, uint32_t length_bytes, uint32_t nsid, uint32_t block_size);

}  // namespace effect_spdk
