// SPDX-License-Identifier: GPL-2.0
/*
 * Loading, and /dev/nvidia-uvm-stand-in. As NVIDIA's module does, a mapping takes chunks in page faults; a call asks for
 * them, too. From block_populate_pages_cpu on the frames are the same.
 */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>

#include "abi.h"
#include "handles.h"
#include "uvm.h"

/* What is held now, for tests: /sys/module/nvidia_uvm/parameters/managed_bytes. */
static atomic64_t managed_bytes;

static int show_bytes(char *buffer, const struct kernel_param *parameter)
{
	return scnprintf(buffer, PAGE_SIZE, "%lld\n", atomic64_read(parameter->arg));
}

static const struct kernel_param_ops bytes_ops = { .get = show_bytes };
module_param_cb(managed_bytes, &bytes_ops, &managed_bytes, 0444);
MODULE_PARM_DESC(managed_bytes, "bytes of chunks that were taken");

/* Chunks of one call, or of one mapping. */
struct block {
	struct stand_in_held held;
	struct mutex lock; /* of faults in several threads */
	u64 chunks, size;
	uvm_cpu_chunk_t **chunk;
};

static void release_block(struct stand_in_held *held)
{
	struct block *block = container_of(held, struct block, held);
	u64 i;

	for (i = 0; i < block->chunks; i++) {
		if (!block->chunk[i])
			continue;
		uvm_cpu_chunk_free(block->chunk[i]);
		atomic64_sub(block->size, &managed_bytes);
		cond_resched();
	}
	kvfree(block->chunk);
	kfree(block);
}

static struct block *new_block(u64 bytes, u64 size)
{
	struct block *block = kzalloc(sizeof(*block), GFP_KERNEL);

	if (!block)
		return NULL;
	block->held.release = release_block;
	refcount_set(&block->held.users, 1);
	mutex_init(&block->lock);
	block->size = size;
	block->chunks = DIV_ROUND_UP_ULL(bytes, size);
	block->chunk = kvcalloc(block->chunks, sizeof(*block->chunk), GFP_KERNEL);
	if (!block->chunk) {
		kfree(block);
		return NULL;
	}
	return block;
}

static noinline long block_populate_pages_cpu(struct block *block, u64 first, u64 end)
{
	u64 i;

	for (i = first; i < end; i++) {
		if (block->chunk[i])
			continue;
		if (uvm_cpu_chunk_alloc(block->size, UVM_CPU_CHUNK_ALLOC_FLAGS_ACCOUNT | UVM_CPU_CHUNK_ALLOC_FLAGS_ZERO,
					NUMA_NO_NODE, &block->chunk[i]) != NV_OK)
			return -ENOMEM;
		atomic64_add(block->size, &managed_bytes);
		cond_resched();
	}
	return 0;
}

static long alloc(struct stand_in_file *own, struct stand_in_alloc __user *user)
{
	struct stand_in_alloc asked;
	struct block *block;
	long error;

	if (copy_from_user(&asked, user, sizeof(asked)))
		return -EFAULT;
	if (!asked.bytes || !asked.page_size || asked.flags & STAND_IN_CONTIGUOUS)
		return -EINVAL;
	asked.page_size = PAGE_SIZE << get_order(asked.page_size);
	if (DIV_ROUND_UP_ULL(asked.bytes, asked.page_size) > U32_MAX >> 1)
		return -EINVAL;
	block = new_block(asked.bytes, asked.page_size);
	if (!block)
		return -ENOMEM;
	error = block_populate_pages_cpu(block, 0, block->chunks);
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

static void uvm_vm_open(struct vm_area_struct *vma)
{
	refcount_inc(&((struct stand_in_held *)vma->vm_private_data)->users);
}

static void uvm_vm_close(struct vm_area_struct *vma)
{
	stand_in_put(vma->vm_private_data);
}

/* Takes the chunk around the address, and maps all of it. */
static noinline vm_fault_t uvm_vm_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct block *block = container_of(vma->vm_private_data, struct block, held);
	u64 i = (((u64)vmf->pgoff) << PAGE_SHIFT) / block->size;
	u64 offset = i * block->size, page;
	vm_fault_t fault = VM_FAULT_NOPAGE;
	long error;

	if (i >= block->chunks)
		return VM_FAULT_SIGBUS;
	mutex_lock(&block->lock);
	error = block_populate_pages_cpu(block, i, i + 1);
	mutex_unlock(&block->lock);
	if (error)
		return VM_FAULT_OOM;
	offset -= (u64)vma->vm_pgoff << PAGE_SHIFT; /* of a mapping that was cut */
	for (page = 0; page < block->size >> PAGE_SHIFT && fault == VM_FAULT_NOPAGE; page++) {
		unsigned long address = vma->vm_start + offset + (page << PAGE_SHIFT);

		if (address >= vma->vm_start && address < vma->vm_end)
			fault = vmf_insert_page(vma, address, block->chunk[i]->page + page);
	}
	return fault;
}

static const struct vm_operations_struct uvm_vm_ops_managed = {
	.open = uvm_vm_open,
	.close = uvm_vm_close,
	.fault = uvm_vm_fault,
};

static int uvm_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct block *block;

	if (!(vma->vm_flags & VM_SHARED) || vma->vm_pgoff)
		return -EINVAL;
	block = new_block((u64)vma_pages(vma) << PAGE_SHIFT, max_t(u64, PAGE_SIZE, SZ_64K));
	if (!block)
		return -ENOMEM;
	/* Faults come side by side, and may not set it. */
	stand_in_vm_flags(vma, VM_MIXEDMAP | VM_DONTEXPAND);
	vma->vm_private_data = &block->held;
	vma->vm_ops = &uvm_vm_ops_managed;
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = stand_in_open,
	.release = stand_in_close,
	.unlocked_ioctl = uvm_unlocked_ioctl_entry,
	.mmap = uvm_mmap,
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
