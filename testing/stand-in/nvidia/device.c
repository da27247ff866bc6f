// SPDX-License-Identifier: GPL-2.0
/* Loading, /dev/nvidia-stand-in, and the file that says what this is. */
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "abi.h"
#include "handles.h"
#include "nv.h"

nv_state_t nv_stand_in;
module_param_named(pools, nv_stand_in.pools, bool, 0444);
MODULE_PARM_DESC(pools, "keep freed pages in pools, as NVIDIA's driver does from 590 on");

/* What the device holds now, for tests: /sys/module/nvidia/parameters/{sysmem,pinned}_bytes. */
static atomic64_t sysmem_bytes, pinned_bytes;

static int show_bytes(char *buffer, const struct kernel_param *parameter)
{
	return scnprintf(buffer, PAGE_SIZE, "%lld\n", atomic64_read(parameter->arg));
}

static const struct kernel_param_ops bytes_ops = { .get = show_bytes };
module_param_cb(sysmem_bytes, &bytes_ops, &sysmem_bytes, 0444);
MODULE_PARM_DESC(sysmem_bytes, "bytes of pages that were taken for programs, and are not in a pool");
module_param_cb(pinned_bytes, &bytes_ops, &pinned_bytes, 0444);
MODULE_PARM_DESC(pinned_bytes, "bytes of user pages that are pinned");

struct sysmem {
	struct stand_in_held held;
	struct rm_memory memory;
};

struct locked {
	struct stand_in_held held;
	u64 page_count;
	void *page_array;
};

static long to_errno(NV_STATUS status)
{
	switch (status) {
	case NV_OK:
		return 0;
	case NV_ERR_NO_MEMORY:
		return -ENOMEM;
	case NV_ERR_INVALID_ADDRESS:
		return -EFAULT;
	default:
		return -EINVAL;
	}
}

/* A run of pages is of a power of two. */
static s64 bytes_of(const struct sysmem *sysmem)
{
	const nv_alloc_t *at = sysmem->memory.priv_data;

	return (s64)nv_blocks(at) << at->order << PAGE_SHIFT;
}

static void release_sysmem(struct stand_in_held *held)
{
	struct sysmem *sysmem = container_of(held, struct sysmem, held);

	atomic64_sub(bytes_of(sysmem), &sysmem_bytes);
	rm_free_sysmem(&sysmem->memory);
	kfree(sysmem);
}

static void release_locked(struct stand_in_held *held)
{
	struct locked *locked = container_of(held, struct locked, held);

	rm_unlock_user_pages(locked->page_count, locked->page_array);
	atomic64_sub((s64)locked->page_count << PAGE_SHIFT, &pinned_bytes);
	kfree(locked);
}

static long alloc(struct stand_in_file *own, struct stand_in_alloc __user *user)
{
	struct stand_in_alloc asked;
	struct sysmem *sysmem;
	long error;

	if (copy_from_user(&asked, user, sizeof(asked)))
		return -EFAULT;
	if (!asked.bytes || !asked.page_size || asked.bytes >> PAGE_SHIFT > U32_MAX >> 1)
		return -EINVAL;
	sysmem = kzalloc(sizeof(*sysmem), GFP_KERNEL);
	if (!sysmem)
		return -ENOMEM;
	sysmem->held.release = release_sysmem;
	sysmem->memory.page_count = DIV_ROUND_UP_ULL(asked.bytes, PAGE_SIZE);
	sysmem->memory.page_size = asked.page_size;
	sysmem->memory.contiguous = asked.flags & STAND_IN_CONTIGUOUS;
	sysmem->memory.zeroed = asked.flags & STAND_IN_ZEROED;
	error = to_errno(rm_alloc_sysmem(&sysmem->memory));
	if (error) {
		kfree(sysmem);
		return error;
	}
	atomic64_add(bytes_of(sysmem), &sysmem_bytes);
	error = stand_in_keep(own, &sysmem->held, &asked.handle);
	if (error) {
		release_sysmem(&sysmem->held);
		return error;
	}
	/* Where the handle cannot be told, the close of the file gives the memory back. */
	return copy_to_user(user, &asked, sizeof(asked)) ? -EFAULT : 0;
}

static long lock(struct stand_in_file *own, struct stand_in_lock __user *user)
{
	struct stand_in_lock asked;
	struct locked *locked;
	long error;

	if (copy_from_user(&asked, user, sizeof(asked)))
		return -EFAULT;
	if (!asked.bytes || !PAGE_ALIGNED(asked.address) || !PAGE_ALIGNED(asked.bytes))
		return -EINVAL;
	locked = kzalloc(sizeof(*locked), GFP_KERNEL);
	if (!locked)
		return -ENOMEM;
	locked->held.release = release_locked;
	locked->page_count = asked.bytes >> PAGE_SHIFT;
	error = to_errno(rm_lock_user_pages((void *)(unsigned long)asked.address, locked->page_count,
					    &locked->page_array));
	if (error) {
		kfree(locked);
		return error;
	}
	atomic64_add((s64)locked->page_count << PAGE_SHIFT, &pinned_bytes);
	error = stand_in_keep(own, &locked->held, &asked.handle);
	if (error) {
		release_locked(&locked->held);
		return error;
	}
	return copy_to_user(user, &asked, sizeof(asked)) ? -EFAULT : 0;
}

static noinline long nvidia_unlocked_ioctl(struct file *file, unsigned int command, unsigned long argument)
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
	case STAND_IN_LOCK:
		result = lock(own, (void __user *)argument);
		break;
	default:
		result = -ENOTTY;
	}
	mutex_unlock(&own->lock);
	return result;
}

static void nvidia_vma_open(struct vm_area_struct *vma)
{
	refcount_inc(&((struct stand_in_held *)vma->vm_private_data)->users);
}

static void nvidia_vma_release(struct vm_area_struct *vma)
{
	stand_in_put(vma->vm_private_data);
}

static const struct vm_operations_struct nv_vm_ops = {
	.open = nvidia_vma_open,
	.close = nvidia_vma_release,
};

/* As NVIDIA's does it (nv-mmap.c): page by page, so that RssFile and Mapped grow by pages that are no file's. */
static noinline int nvidia_mmap_sysmem(struct vm_area_struct *vma, nv_alloc_t *at, u64 page_index, u64 pages)
{
	unsigned long start = vma->vm_start;
	u64 j;

	for (j = page_index; j < page_index + pages; j++) {
		if (vm_insert_page(vma, start, virt_to_page((void *)at->page_table[j].virt_addr)))
			return -EAGAIN;
		start += PAGE_SIZE;
	}
	return 0;
}

static int nvidia_mmap(struct file *file, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT, pages = vma_pages(vma);
	u64 page_index = (offset & ((1ull << STAND_IN_MAP_SHIFT) - 1)) >> PAGE_SHIFT;
	struct stand_in_held *held;
	nv_alloc_t *at;
	int error = -EINVAL;

	if (!(vma->vm_flags & VM_SHARED))
		return error;
	held = stand_in_get(file->private_data, offset >> STAND_IN_MAP_SHIFT);
	if (!held)
		return -ENOENT;
	if (held->release == release_sysmem) {
		at = container_of(held, struct sysmem, held)->memory.priv_data;
		error = page_index + pages <= at->num_pages ? nvidia_mmap_sysmem(vma, at, page_index, pages) :
							      -ERANGE;
	}
	if (error) {
		stand_in_put(held);
		return error;
	}
	stand_in_vm_flags(vma, VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_private_data = held;
	vma->vm_ops = &nv_vm_ops;
	return 0;
}

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = stand_in_open,
	.release = stand_in_close,
	.unlocked_ioctl = nvidia_unlocked_ioctl,
	.mmap = nvidia_mmap,
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = STAND_IN_NVIDIA,
	.fops = &operations,
	.mode = 0666, /* as NVIDIA's devices are */
};

/* Begins as the driver's own line does, and has no version number that could be taken for one of its. */
static int version_show(struct seq_file *out, void *unused)
{
	seq_puts(out, "NVRM version: STAND-IN for NVIDIA's kernel module, for tests: no driver, no GPU  stand-in\n");
	return 0;
}

static int __init nvidia_init(void)
{
	int error = -ENOMEM;

	if (!proc_mkdir("driver/nvidia", NULL))
		return error;
	if (!proc_create_single("driver/nvidia/version", 0444, NULL, version_show))
		goto no_file;
	if (nv_stand_in.pools) {
		error = nv_init_page_pools();
		if (error)
			goto no_pools;
	}
	error = misc_register(&device);
	if (!error)
		return 0;
no_pools:
	nv_destroy_page_pools();
no_file:
	remove_proc_subtree("driver/nvidia", NULL);
	return error;
}

static void __exit nvidia_exit(void)
{
	misc_deregister(&device);
	nv_destroy_page_pools();
	remove_proc_subtree("driver/nvidia", NULL);
}

module_init(nvidia_init);
module_exit(nvidia_exit);
MODULE_LICENSE("GPL");
MODULE_VERSION("stand-in");
MODULE_DESCRIPTION("Stand-in for NVIDIA's kernel module, for tests of spark-trace: no driver, no GPU");
