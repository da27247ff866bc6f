// SPDX-License-Identifier: GPL-2.0
#include <linux/gfp.h>
#include <linux/slab.h>

#include "uvm.h"

static struct page *uvm_cpu_chunk_alloc_page(uvm_chunk_size_t size, int nid, uvm_cpu_chunk_alloc_flags_t flags)
{
	gfp_t mask = GFP_HIGHUSER | __GFP_NOMEMALLOC;

	if (flags & UVM_CPU_CHUNK_ALLOC_FLAGS_ACCOUNT)
		mask |= __GFP_ACCOUNT;
	if (flags & UVM_CPU_CHUNK_ALLOC_FLAGS_ZERO)
		mask |= __GFP_ZERO;
	/* A large chunk is a wish: the caller asks for a smaller one next. */
	if (size > PAGE_SIZE)
		mask |= __GFP_COMP | __GFP_NORETRY | __GFP_NOWARN;
	return alloc_pages_node(nid, mask, get_order(size));
}

noinline NV_STATUS uvm_cpu_chunk_alloc(uvm_chunk_size_t alloc_size, uvm_cpu_chunk_alloc_flags_t flags, int nid,
				       uvm_cpu_chunk_t **new_chunk)
{
	uvm_cpu_chunk_t *chunk = kzalloc(sizeof(*chunk), GFP_KERNEL);

	if (!chunk)
		return NV_ERR_NO_MEMORY;
	chunk->size = alloc_size;
	chunk->page = uvm_cpu_chunk_alloc_page(alloc_size, nid, flags);
	if (!chunk->page) {
		kfree(chunk);
		return NV_ERR_NO_MEMORY;
	}
	*new_chunk = chunk;
	return NV_OK;
}

noinline void uvm_cpu_chunk_free(uvm_cpu_chunk_t *chunk)
{
	__free_pages(chunk->page, get_order(chunk->size));
	kfree(chunk);
}
