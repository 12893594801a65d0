/* Memory of the code cache. Host code: main thread, at creation and destruction of a vCPU. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/soft/code.h"

#define ARENA_SIZE (CODE_REGIONS * CODE_REGION)

static void *map(u64 size)
{
	void *p =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static u64 heads_size(const struct soft_cpu *c)
{
	return c->ram->end / RAM_PAGE_SIZE * sizeof(u32);
}

int code_init(struct soft_cpu *c, struct err *err)
{
	struct code_cache *code = calloc(1, sizeof(*code));

	c->code = code;
	if (!code)
		return err_set(err, -ENOMEM, "no memory for the code cache");
	code->arena = map(ARENA_SIZE);
	code->hash = map(sizeof(code->hash[0]) << CODE_HASH_BITS);
	code->page_head = map(heads_size(c)); /* sparse: only pages with code are touched */
	code->temp = calloc(1u << CODE_TEMP_BITS, sizeof(*code->temp));
	if (!code->arena || !code->hash || !code->page_head || !code->temp)
		return err_set(err, -ENOMEM, "no memory for the code cache (%llu MiB)", ARENA_SIZE / MiB);
	return 0;
}

void code_fini(struct soft_cpu *c)
{
	struct code_cache *code = c->code;

	if (!code)
		return;
	if (code->arena)
		munmap(code->arena, ARENA_SIZE);
	if (code->hash)
		munmap(code->hash, sizeof(code->hash[0]) << CODE_HASH_BITS);
	if (code->page_head)
		munmap(code->page_head, heads_size(c));
	free(code->temp);
	free(code);
	c->code = NULL;
}
