// SPDX-License-Identifier: GPL-2.0
/*
 * Loading, and /dev/nvidia-uvm-stand-in. NVIDIA's module takes chunks in page faults; here a call asks for them, and
 * from block_populate_pages_cpu on the frames are the same.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include "abi.h"
#include "handles.h"
#include "uvm.h"

struct block {
	struct stand_in_held held;
	u64 chunks;
	uvm_cpu_chunk_t **chunk;
};

static void release_block(struct stand_in_held *held)
{
	struct block *block = container_of(held, struct block, held);
	u64 i;

	for (i = 0; i < block->chunks; i++) {
		uvm_cpu_chunk_free(block->chunk[i]);
		cond_resched();
	}
	kvfree(block->chunk);
	kfree(block);
}

static noinline long block_populate_pages_cpu(struct block *block, u64 chunks, u64 size)
{
	for (; block->chunks < chunks; block->chunks++) {
		if (uvm_cpu_chunk_alloc(size, UVM_CPU_CHUNK_ALLOC_FLAGS_ACCOUNT | UVM_CPU_CHUNK_ALLOC_FLAGS_ZERO,
					NUMA_NO_NODE, &block->chunk[block->chunks]) != NV_OK)
			return -ENOMEM;
		cond_resched();
	}
	return 0;
}

static long alloc(struct stand_in_file *own, struct stand_in_alloc __user *user)
{
	struct stand_in_alloc asked;
	struct block *block;
	long error = -ENOMEM;
	u64 chunks;

	if (copy_from_user(&asked, user, sizeof(asked)))
		return -EFAULT;
	if (!asked.bytes || !asked.page_size || asked.flags & STAND_IN_CONTIGUOUS)
		return -EINVAL;
	asked.page_size = PAGE_SIZE << get_order(asked.page_size);
	chunks = DIV_ROUND_UP_ULL(asked.bytes, asked.page_size);
	if (chunks > U32_MAX >> 1)
		return -EINVAL;
	block = kzalloc(sizeof(*block), GFP_KERNEL);
	if (!block)
		return -ENOMEM;
	block->held.release = release_block;
	block->chunk = kvcalloc(chunks, sizeof(*block->chunk), GFP_KERNEL);
	if (block->chunk)
		error = block_populate_pages_cpu(block, chunks, asked.page_size);
	if (!error)
		error = stand_in_keep(own, &block->held, &asked.handle);
	if (error) {
		release_block(&block->held);
		return error;
	}
	return copy_to_user(user, &asked, sizeof(asked)) ? -EFAULT : 0;
}

static noinline long uvm_unlocked_ioctl_entry(struct file *file, unsigned int command, unsigned long argument)
{
	struct stand_in_file *own = file->private_data;
	long result;

	mutex_lock(&own->lock);
	switch (command) {
	case STAND_IN_ALLOC:
		result = alloc(own, (void __user *)argument);
		break;
	case STAND_IN_FREE:
		result = stand_in_free(own, argument);
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&own->lock);
	return result;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = stand_in_open,
	.release = stand_in_close,
	.unlocked_ioctl = uvm_unlocked_ioctl_entry,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = STAND_IN_UVM,
	.fops = &operations,
	.mode = 0666,
};

module_misc_device(device);
MODULE_LICENSE("GPL");
MODULE_VERSION("stand-in");
MODULE_DESCRIPTION("Stand-in for NVIDIA's managed memory module, for tests of spark-trace: no driver, no GPU");
