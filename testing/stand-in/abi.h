/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a program says to the stand-in's devices. The reference workload has the same in Rust
 * (testing/workload/src/driver/abi.rs), and so has the simulated driver (testing/simulated-cuda/src/stand_in.rs): keep
 * them in step.
 */
#ifndef STAND_IN_ABI_H
#define STAND_IN_ABI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Both devices answer ALLOC and FREE, and are mapped; /dev/nvidia-stand-in answers LOCK as well. */
#define STAND_IN_NVIDIA "nvidia-stand-in"
#define STAND_IN_UVM "nvidia-uvm-stand-in"

#define STAND_IN_CONTIGUOUS 1 /* one run of pages, as RM asks for what its hardware reads by address */
#define STAND_IN_ZEROED 2     /* as memory for programs is asked for; without it no pool takes the pages */

struct stand_in_alloc {
	__u64 bytes;
	__u64 page_size;
	__u32 flags;
	__u32 handle; /* out */
};

struct stand_in_lock {
	__u64 address;
	__u64 bytes;
	__u32 handle; /* out */
	__u32 unused;
};

#define STAND_IN_ALLOC _IOWR('s', 1, struct stand_in_alloc)
#define STAND_IN_FREE _IO('s', 2) /* the handle is the argument itself */
#define STAND_IN_LOCK _IOWR('s', 3, struct stand_in_lock)

/*
 * What ALLOC has taken through /dev/nvidia-stand-in is mapped from the offset HANDLE << STAND_IN_MAP_SHIFT on; it stays
 * until nothing maps it. A mapping of /dev/nvidia-uvm-stand-in, from offset 0 on, is managed memory of its own: its
 * chunks are taken in page faults, and go with it. Both take shared mappings alone.
 */
#define STAND_IN_MAP_SHIFT 40
#define STAND_IN_HANDLES (1u << 22) /* offsets are signed */

#endif
