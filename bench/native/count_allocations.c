/*
 * Counts heap allocations by thread. Loaded in front of libc with LD_PRELOAD; the counts lie in the file that
 * EFFECT_SPDK_ALLOCATIONS names, mapped and shared, so that JavaScript reads them without calling anything.
 *
 * The file holds pairs of 64-bit words: a thread's id and how often it allocated. A thread takes a pair at its
 * first allocation and keeps it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAIRS = 256 };

struct pair {
	_Atomic uint64_t thread_id;
	_Atomic uint64_t allocations;
};

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static struct pair *pairs;
static _Atomic uint32_t pairs_taken;
static __thread struct pair *mine __attribute__((tls_model("initial-exec")));

__attribute__((constructor)) static void open_counters(void)
{
	const char *path = getenv("EFFECT_SPDK_ALLOCATIONS");
	void *mapped;
	int fd;

	if (path == NULL) {
		return;
	}
	/* Programs that the measured process runs would count into the same pairs. */
	unsetenv("LD_PRELOAD");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return;
	}
	mapped = mmap(NULL, PAIRS * sizeof(struct pair), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (mapped != MAP_FAILED) {
		pairs = mapped;
	}
}

static void count(void)
{
	uint32_t index;

	if (pairs == NULL) {
		return;
	}
	if (mine == NULL) {
		index = atomic_fetch_add(&pairs_taken, 1);
		/* More threads than pairs share the last one: nothing goes uncounted. */
		mine = &pairs[index < PAIRS ? index : PAIRS - 1];
		atomic_store(&mine->thread_id, (uint64_t)syscall(SYS_gettid));
	}
	atomic_fetch_add_explicit(&mine->allocations, 1, memory_order_relaxed);
}

void *malloc(size_t size)
{
	count();
	return __libc_malloc(size);
}

void *calloc(size_t items, size_t size)
{
	count();
	return __libc_calloc(items, size);
}

void *realloc(void *memory, size_t size)
{
	count();
	return __libc_realloc(memory, size);
}

void *memalign(size_t alignment, size_t size)
{
	count();
	return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size)
{
	count();
	return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	void *allocated;

	count();
	if (alignment % sizeof(void *) != 0 || (alignment & (alignment - 1)) != 0) {
		return EINVAL;
	}
	allocated = __libc_memalign(alignment, size);
	if (allocated == NULL) {
		return ENOMEM;
	}
	*memory = allocated;
	return 0;
}
