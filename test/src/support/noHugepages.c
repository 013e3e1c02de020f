// Preloaded into SPDK's programs that have no options for it: starts their SPDK without hugepages and without PCI.
#include <dlfcn.h>
#include <spdk/event.h>

typedef int (*app_start)(struct spdk_app_opts *, spdk_msg_fn, void *);

int spdk_app_start(struct spdk_app_opts *opts, spdk_msg_fn start, void *context) {
  opts->no_huge = true;
  opts->no_pci = true;
  opts->mem_size = 512;
  opts->print_level = SPDK_LOG_ERROR;
  return ((app_start)dlsym(RTLD_NEXT, "spdk_app_start"))(opts, start, context);
}
