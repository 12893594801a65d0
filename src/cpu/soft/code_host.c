/* Memory of the code cache. Host code: main thread, at creation and destruction of a VM or a vCPU. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "cpu/soft/code.h"

#define ARENA_SIZE (REGIONS_MOST * CODE_REGION)

static void *map(u64 size)
{
	void *p =
		mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static u64 heads_size(const struct ram *ram)
{
	return ram->end / RAM_PAGE_SIZE * sizeof(block_ref);
}

static u64 pages_size(const struct ram *ram)
{
	return ram->end / RAM_PAGE_SIZE * sizeof(struct code_page);
}

int code_vm_init(struct soft_vm *s, struct err *err)
{
	struct code_cache *code = calloc(1, sizeof(*code));

	s->code = code;
	if (!code)
		return err_set(err, -ENOMEM, "no memory for the code cache");
	code->ram = &s->vm->ram;
	regions_init(&code->use, CODE_LEAST, s->most_regions);
	code->arena = map(ARENA_SIZE);
	code->hash = map(sizeof(code->hash[0]) << CODE_HASH_BITS);
	code->page_head = map(heads_size(code->ram)); /* sparse: only pages with code are touched */
	code->page = map(pages_size(code->ram));
	if (!code->arena || !code->hash || !code->page_head || !code->page)
		return err_set(err, -ENOMEM, "no memory for the code cache (%llu MiB)", ARENA_SIZE / MiB);
	return 0;
}

void code_give_back(struct soft_vm *s)
{
	u32 r = regions_give_back(&s->code->use);

	if (r == REGIONS_MOST)
		return;
	code_give_up(s, r);
	madvise(s->code->arena + r * CODE_REGION, CODE_REGION, MADV_DONTNEED);
}

void code_vm_fini(struct soft_vm *s)
{
	struct code_cache *code = s->code;

	if (!code)
		return;
	if (code->arena)
		munmap(code->arena, ARENA_SIZE);
	if (code->hash)
		munmap(code->hash, sizeof(code->hash[0]) << CODE_HASH_BITS);
	if (code->page_head)
		munmap(code->page_head, heads_size(code->ram));
	if (code->page)
		munmap(code->page, pages_size(code->ram));
	free(code);
	s->code = NULL;
}

int code_init(struct soft_cpu *c, struct err *err)
{
	c->code = c->svm->code;
	c->temp = calloc(1u << CODE_TEMP_BITS, sizeof(*c->temp));
	if (!c->temp)
		return err_set(err, -ENOMEM, "no memory for the code cache");
	return 0;
}

void code_fini(struct soft_cpu *c)
{
	free(c->temp);
	c->temp = NULL;
	c->code = NULL;
}
