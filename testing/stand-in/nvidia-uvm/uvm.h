/* SPDX-License-Identifier: GPL-2.0 */
/* Managed memory in system memory: names as in NVIDIA's nvidia-uvm module at 580, code of our own. */
#ifndef STAND_IN_UVM_H
#define STAND_IN_UVM_H

#include <linux/mm.h>
#include <linux/types.h>

typedef u32 NV_STATUS;
#define NV_OK 0x00
#define NV_ERR_NO_MEMORY 0x51

typedef u64 uvm_chunk_size_t;

typedef enum {
	UVM_CPU_CHUNK_ALLOC_FLAGS_NONE = 0,
	UVM_CPU_CHUNK_ALLOC_FLAGS_ACCOUNT = 1 << 0, /* charge the cgroup of the process */
	UVM_CPU_CHUNK_ALLOC_FLAGS_ZERO = 1 << 1,
} uvm_cpu_chunk_alloc_flags_t;

typedef struct uvm_cpu_chunk {
	struct page *page;
	uvm_chunk_size_t size;
} uvm_cpu_chunk_t;

NV_STATUS uvm_cpu_chunk_alloc(uvm_chunk_size_t alloc_size, uvm_cpu_chunk_alloc_flags_t flags, int nid,
			      uvm_cpu_chunk_t **new_chunk);
void uvm_cpu_chunk_free(uvm_cpu_chunk_t *chunk);

#endif
