/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Handles of one open file: what it holds, given back one by one or all at once at its close.
 */
#ifndef STAND_IN_HANDLES_H
#define STAND_IN_HANDLES_H

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/version.h>
#include <linux/xarray.h>

#include "abi.h"

struct stand_in_held {
	void (*release)(struct stand_in_held *held);
	refcount_t users; /* its handle, and each mapping */
};

struct stand_in_file {
	struct mutex lock; /* one call at a time, as RM's own lock has it */
	struct xarray held;
};

static inline int stand_in_open(struct inode *inode, struct file *file)
{
	struct stand_in_file *own = kzalloc(sizeof(*own), GFP_KERNEL);

	if (!own)
		return -ENOMEM;
	mutex_init(&own->lock);
	xa_init_flags(&own->held, XA_FLAGS_ALLOC1);
	file->private_data = own;
	return 0;
}

static inline int stand_in_keep(struct stand_in_file *own, struct stand_in_held *held, u32 *handle)
{
	refcount_set(&held->users, 1);
	return xa_alloc(&own->held, handle, held, XA_LIMIT(1, STAND_IN_HANDLES - 1), GFP_KERNEL);
}

static inline void stand_in_put(struct stand_in_held *held)
{
	if (refcount_dec_and_test(&held->users))
		held->release(held);
}

/* What the handle stands for, with one user more. */
static inline struct stand_in_held *stand_in_get(struct stand_in_file *own, unsigned long handle)
{
	struct stand_in_held *held;

	xa_lock(&own->held);
	held = xa_load(&own->held, handle);
	if (held)
		refcount_inc(&held->users);
	xa_unlock(&own->held);
	return held;
}

static inline void stand_in_vm_flags(struct vm_area_struct *vma, unsigned long flags)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
	vma->vm_flags |= flags;
#else
	vm_flags_set(vma, flags);
#endif
}

static inline long stand_in_free(struct stand_in_file *own, unsigned long handle)
{
	struct stand_in_held *held = xa_erase(&own->held, handle);

	if (!held)
		return -ENOENT;
	stand_in_put(held);
	return 0;
}

static inline int stand_in_close(struct inode *inode, struct file *file)
{
	struct stand_in_file *own = file->private_data;
	struct stand_in_held *held;
	unsigned long handle;

	xa_for_each(&own->held, handle, held)
		stand_in_put(held);
	xa_destroy(&own->held);
	kfree(own);
	return 0;
}

#endif
