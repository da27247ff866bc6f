// SPDX-License-Identifier: GPL-2.0
/* The entry to all of the driver's system memory. */
#include <linux/slab.h>

#include "nv.h"

static noinline nv_alloc_t *nvos_create_alloc(u32 page_count)
{
	nv_alloc_t *at = kzalloc(sizeof(*at), GFP_KERNEL);

	if (!at)
		return NULL;
	/* 16 bytes for each page: a large list comes from vmalloc. */
	at->page_table = kvcalloc(page_count, sizeof(*at->page_table), GFP_KERNEL);
	if (!at->page_table) {
		kfree(at);
		return NULL;
	}
	at->num_pages = page_count;
	return at;
}

static noinline void nvos_free_alloc(nv_alloc_t *at)
{
	kvfree(at->page_table);
	kfree(at);
}

NV_FUNCTION NV_STATUS nv_alloc_pages(nv_state_t *nv, u32 page_count, u64 page_size, bool contiguous, u32 cache_type,
				     bool zeroed, bool unencrypted, s32 node_id, u64 *pte_array, void **priv_data)
{
	NV_STATUS status;
	nv_alloc_t *at;
	u32 i;

	if (!page_count || !page_size || unencrypted || node_id != NUMA_NO_NODE)
		return NV_ERR_INVALID_ARGUMENT;
	at = nvos_create_alloc(page_count);
	if (!at)
		return NV_ERR_NO_MEMORY;
	at->cache_type = cache_type;
	at->contig = contiguous;
	at->zeroed = zeroed;
	if (contiguous) {
		status = nv_alloc_contig_pages(nv, at);
	} else {
		at->order = get_order(page_size);
		status = nv_alloc_system_pages(nv, at);
	}
	if (status != NV_OK) {
		nvos_free_alloc(at);
		return status;
	}
	for (i = 0; i < (contiguous ? 1 : page_count); i++)
		pte_array[i] = at->page_table[i].phys_addr;
	*priv_data = at;
	return NV_OK;
}

NV_FUNCTION NV_STATUS nv_free_pages(nv_state_t *nv, u32 page_count, bool contiguous, u32 cache_type, void *priv_data)
{
	nv_alloc_t *at = priv_data;

	if (at->num_pages != page_count || at->contig != contiguous)
		return NV_ERR_INVALID_ARGUMENT;
	if (at->contig)
		nv_free_contig_pages(at);
	else
		nv_free_system_pages(at);
	nvos_free_alloc(at);
	return NV_OK;
}
