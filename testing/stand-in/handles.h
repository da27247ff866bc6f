/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Handles of one open file: what it holds, given back one by one or all at once at its close.
 */
#ifndef STAND_IN_HANDLES_H
#define STAND_IN_HANDLES_H

#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/xarray.h>

struct stand_in_held {
	void (*release)(struct stand_in_held *held);
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
	return xa_alloc(&own->held, handle, held, xa_limit_31b, GFP_KERNEL);
}

static inline long stand_in_free(struct stand_in_file *own, unsigned long handle)
{
	struct stand_in_held *held = xa_erase(&own->held, handle);

	if (!held)
		return -ENOENT;
	held->release(held);
	return 0;
}

static inline int stand_in_close(struct inode *inode, struct file *file)
{
	struct stand_in_file *own = file->private_data;
	struct stand_in_held *held;
	unsigned long handle;

	xa_for_each(&own->held, handle, held)
		held->release(held);
	xa_destroy(&own->held);
	kfree(own);
	return 0;
}

#endif
