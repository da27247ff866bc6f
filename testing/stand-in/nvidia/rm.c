// SPDX-License-Identifier: GPL-2.0
/*
 * The way that memory for a program takes through RM, the part of the driver between its ioctls and nv.c. Nothing
 * happens on it but calls: these are the frames that a tracer finds between the two.
 */
#include "nv.h"

static noinline NV_STATUS osAllocPagesInternal(struct rm_memory *memory)
{
	NV_STATUS status = os_alloc_mem((void **)&memory->pte_array, memory->page_count * sizeof(u64));

	if (status != NV_OK)
		return status;
	status = nv_alloc_pages(&nv_stand_in, memory->page_count, memory->page_size, memory->contiguous,
				NV_MEMORY_CACHED, memory->zeroed, false, NUMA_NO_NODE, memory->pte_array,
				&memory->priv_data);
	if (status != NV_OK)
		os_free_mem(memory->pte_array);
	return status;
}

static noinline void osFreePagesInternal(struct rm_memory *memory)
{
	WARN_ON(nv_free_pages(&nv_stand_in, memory->page_count, memory->contiguous, NV_MEMORY_CACHED,
			      memory->priv_data) != NV_OK);
	os_free_mem(memory->pte_array);
}

static noinline NV_STATUS _memdescAllocInternal(struct rm_memory *memory)
{
	NV_STATUS status = osAllocPagesInternal(memory);

	barrier(); /* no jump in place of a call: the caller would be missing on the stack */
	return status;
}

static noinline NV_STATUS memdescAlloc(struct rm_memory *memory)
{
	NV_STATUS status = _memdescAllocInternal(memory);

	barrier();
	return status;
}

static noinline void memdescFree(struct rm_memory *memory)
{
	osFreePagesInternal(memory);
	barrier();
}

static noinline NV_STATUS sysmemAllocResources(struct rm_memory *memory)
{
	NV_STATUS status = memdescAlloc(memory);

	barrier();
	return status;
}

static noinline NV_STATUS sysmemConstruct_IMPL(struct rm_memory *memory)
{
	NV_STATUS status = sysmemAllocResources(memory);

	barrier();
	return status;
}

static noinline void sysmemDestruct_IMPL(struct rm_memory *memory)
{
	memdescFree(memory);
	barrier();
}

noinline NV_STATUS rm_alloc_sysmem(struct rm_memory *memory)
{
	NV_STATUS status = sysmemConstruct_IMPL(memory);

	barrier();
	return status;
}

noinline NV_STATUS rm_free_sysmem(struct rm_memory *memory)
{
	sysmemDestruct_IMPL(memory);
	return NV_OK;
}

static noinline NV_STATUS RmCreateOsDescriptor(void *address, u64 page_count, void **page_array)
{
	NV_STATUS status = os_lock_user_pages(address, page_count, page_array, 0);

	barrier();
	return status;
}

noinline NV_STATUS rm_lock_user_pages(void *address, u64 page_count, void **page_array)
{
	NV_STATUS status = RmCreateOsDescriptor(address, page_count, page_array);

	barrier();
	return status;
}

noinline NV_STATUS rm_unlock_user_pages(u64 page_count, void *page_array)
{
	NV_STATUS status = os_unlock_user_pages(page_count, page_array, 0);

	barrier();
	return status;
}
