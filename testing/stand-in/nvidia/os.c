// SPDX-License-Identifier: GPL-2.0
/* The driver's own memory, and user pages that it pins. */
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/vmalloc.h>

#include "nv.h"

#define KMALLOC_AT_MOST (128u << 10)

NV_FUNCTION NV_STATUS os_alloc_mem(void **address, u64 size)
{
	*address = size <= KMALLOC_AT_MOST ? kmalloc(size, GFP_KERNEL | __GFP_NOWARN) : vmalloc(size);
	return *address ? NV_OK : NV_ERR_NO_MEMORY;
}

NV_FUNCTION void os_free_mem(void *address)
{
	kvfree(address);
}

NV_FUNCTION NV_STATUS os_lock_user_pages(void *address, u64 page_count, void **page_array, u32 flags)
{
	/* NVIDIA's asks for a long-term pin on x86 only. */
	unsigned int gup = FOLL_WRITE | (IS_ENABLED(CONFIG_X86) ? FOLL_LONGTERM : 0);
	unsigned long start = (unsigned long)address;
	struct page **pages;
	long pinned = 0;

	if (os_alloc_mem((void **)&pages, page_count * sizeof(*pages)) != NV_OK)
		return NV_ERR_NO_MEMORY;
	mmap_read_lock(current->mm);
	while (pinned < page_count) {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
		long n = pin_user_pages(start + pinned * PAGE_SIZE, page_count - pinned, gup, pages + pinned, NULL);
#else
		long n = pin_user_pages(start + pinned * PAGE_SIZE, page_count - pinned, gup, pages + pinned);
#endif
		if (n <= 0)
			break;
		pinned += n;
	}
	mmap_read_unlock(current->mm);
	if (pinned < page_count) {
		unpin_user_pages(pages, pinned);
		os_free_mem(pages);
		return NV_ERR_INVALID_ADDRESS;
	}
	*page_array = pages;
	return NV_OK;
}

NV_FUNCTION NV_STATUS os_unlock_user_pages(u64 page_count, void *page_array, u32 flags)
{
	unpin_user_pages_dirty_lock(page_array, page_count, true);
	os_free_mem(page_array);
	return NV_OK;
}
