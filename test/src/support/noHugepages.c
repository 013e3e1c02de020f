// Preloaded into SPDK's programs that have no options for it: starts their SPDK without hugepages and without PCI.
#include <dlfcn.h>
#include <spdk/env.h>
#include <spdk/event.h>
#include <stdio.h>

typedef int (*app_start)(struct spdk_app_opts *, spdk_msg_fn, void *);
typedef int (*env_init)(const struct spdk_env_opts *);

int spdk_app_start(struct spdk_app_opts *opts, spdk_msg_fn start, void *context) {
  opts->no_huge = true;
  opts->no_pci = true;
  opts->mem_size = 512;
  opts->print_level = SPDK_LOG_ERROR;
  return ((app_start)dlsym(RTLD_NEXT, "spdk_app_start"))(opts, start, context);
}

// Of programs without the event framework; spdk_app_start has set all of it already when it comes here.
int spdk_env_init(const struct spdk_env_opts *opts) {
  if (opts != NULL && !opts->no_huge) {
    // The program's own variable, which it does not look at again.
    struct spdk_env_opts *mine = (struct spdk_env_opts *)opts;
    mine->no_huge = true;
    mine->no_pci = true;
    mine->mem_size = 256;
    // Into a pipe it would say all of it at its end.
    setvbuf(stdout, NULL, _IOLBF, 0);
  }
  return ((env_init)dlsym(RTLD_NEXT, "spdk_env_init"))(opts);
}
