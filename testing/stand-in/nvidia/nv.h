/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Names, signatures and order of calls are those of NVIDIA's open kernel modules at 580 (590 where pools are on);
 * what is inside is our own.
 */
#ifndef STAND_IN_NV_H
#define STAND_IN_NV_H

#include <linux/mm.h>
#include <linux/types.h>

typedef u32 NV_STATUS;
#define NV_OK 0x00
#define NV_ERR_INVALID_ADDRESS 0x1e
#define NV_ERR_INVALID_ARGUMENT 0x1f
#define NV_ERR_NO_MEMORY 0x51

#define NV_MEMORY_CACHED 0

/* A function that a tracer may look for: there by its name, in kallsyms and on the stack. */
#define NV_FUNCTION noinline

typedef struct nv_state {
	bool pools; /* driver 590 or later: freed pages are kept */
} nv_state_t;

struct nv_page {
	unsigned long virt_addr;
	u64 phys_addr;
};

typedef struct nv_alloc {
	u32 num_pages; /* of the kernel's size */
	u32 order;
	u32 cache_type;
	bool contig;
	bool zeroed;
	bool pool; /* taken where a pool could have served, so a pool takes it back */
	struct nv_page *page_table;
} nv_alloc_t;

extern nv_state_t nv_stand_in;

/* nv.c */
NV_STATUS nv_alloc_pages(nv_state_t *nv, u32 page_count, u64 page_size, bool contiguous, u32 cache_type, bool zeroed,
			 bool unencrypted, s32 node_id, u64 *pte_array, void **priv_data);
NV_STATUS nv_free_pages(nv_state_t *nv, u32 page_count, bool contiguous, u32 cache_type, void *priv_data);

/* nv-vm.c */
NV_STATUS nv_alloc_system_pages(nv_state_t *nv, nv_alloc_t *at);
void nv_free_system_pages(nv_alloc_t *at);
NV_STATUS nv_alloc_contig_pages(nv_state_t *nv, nv_alloc_t *at);
void nv_free_contig_pages(nv_alloc_t *at);
void nv_set_page(nv_alloc_t *at, u32 index, unsigned long virt_addr);

static inline u32 nv_blocks(const nv_alloc_t *at)
{
	return DIV_ROUND_UP(at->num_pages, 1u << at->order);
}

static inline struct nv_page *nv_block(const nv_alloc_t *at, u32 index)
{
	return &at->page_table[(size_t)index << at->order];
}

/* pool.c */
int nv_init_page_pools(void);
void nv_destroy_page_pools(void);
u32 nv_mem_pool_alloc_pages(nv_alloc_t *at);
bool nv_mem_pool_free_pages(nv_alloc_t *at);

/* os.c */
NV_STATUS os_alloc_mem(void **address, u64 size);
void os_free_mem(void *address);
NV_STATUS os_lock_user_pages(void *address, u64 page_count, void **page_array, u32 flags);
NV_STATUS os_unlock_user_pages(u64 page_count, void *page_array, u32 flags);

/* rm.c */
struct rm_memory {
	u32 page_count;
	u64 page_size;
	bool contiguous;
	bool zeroed;
	u64 *pte_array;
	void *priv_data;
};

NV_STATUS rm_alloc_sysmem(struct rm_memory *memory);
NV_STATUS rm_free_sysmem(struct rm_memory *memory);
NV_STATUS rm_lock_user_pages(void *address, u64 page_count, void **page_array);
NV_STATUS rm_unlock_user_pages(u64 page_count, void *page_array);

#endif
