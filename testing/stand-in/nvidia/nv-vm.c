// SPDX-License-Identifier: GPL-2.0
/*
 * Pages from the kernel's allocator. None of them is charged to a memory cgroup: no mask here has __GFP_ACCOUNT,
 * as none of NVIDIA's has.
 */
#include <linux/gfp.h>
#include <linux/io.h>

#include "nv.h"

static gfp_t nv_compute_gfp_mask(const nv_alloc_t *at)
{
	gfp_t mask = GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;

	if (at->zeroed)
		mask |= __GFP_ZERO;
	if (at->order > 0)
		mask |= __GFP_COMP;
	return mask;
}

void nv_set_page(nv_alloc_t *at, u32 index, unsigned long virt_addr)
{
	struct nv_page *first = nv_block(at, index);
	struct nv_page *end = min(first + (1u << at->order), at->page_table + at->num_pages);
	struct nv_page *page;

	for (page = first; page < end; page++) {
		page->virt_addr = virt_addr + (page - first) * PAGE_SIZE;
		page->phys_addr = virt_to_phys((void *)page->virt_addr);
	}
}

static void free_blocks(nv_alloc_t *at)
{
	u32 i, blocks = nv_blocks(at);

	for (i = 0; i < blocks; i++) {
		unsigned long virt_addr = nv_block(at, i)->virt_addr;

		if (!virt_addr) /* the allocation failed here */
			break;
		free_pages(virt_addr, at->order);
	}
}

NV_FUNCTION void nv_free_system_pages(nv_alloc_t *at)
{
	if (!at->pool || !nv_mem_pool_free_pages(at))
		free_blocks(at);
}

NV_FUNCTION NV_STATUS nv_alloc_system_pages(nv_state_t *nv, nv_alloc_t *at)
{
	gfp_t mask = nv_compute_gfp_mask(at);
	u32 i = 0, blocks = nv_blocks(at);

	at->pool = nv->pools && at->zeroed && at->cache_type == NV_MEMORY_CACHED;
	if (at->pool)
		i = nv_mem_pool_alloc_pages(at);
	for (; i < blocks; i++) {
		unsigned long virt_addr = __get_free_pages(mask, at->order);

		if (!virt_addr) {
			nv_free_system_pages(at);
			return NV_ERR_NO_MEMORY;
		}
		nv_set_page(at, i, virt_addr);
		cond_resched();
	}
	return NV_OK;
}

NV_FUNCTION NV_STATUS nv_alloc_contig_pages(nv_state_t *nv, nv_alloc_t *at)
{
	unsigned long virt_addr;

	at->order = get_order((unsigned long)at->num_pages * PAGE_SIZE);
	/* From 590 on one function calls the other: who hooks both counts twice. */
	if (nv->pools)
		return nv_alloc_system_pages(nv, at);
	virt_addr = __get_free_pages(nv_compute_gfp_mask(at), at->order);
	if (!virt_addr)
		return NV_ERR_NO_MEMORY;
	nv_set_page(at, 0, virt_addr);
	return NV_OK;
}

NV_FUNCTION void nv_free_contig_pages(nv_alloc_t *at)
{
	nv_free_system_pages(at);
}
