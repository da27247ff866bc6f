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

static void release_sysmem(struct stand_in_held *held)
{
	struct sysmem *sysmem = container_of(held, struct sysmem, held);

	rm_free_sysmem(&sysmem->memory);
	kfree(sysmem);
}

static void release_locked(struct stand_in_held *held)
{
	struct locked *locked = container_of(held, struct locked, held);

	rm_unlock_user_pages(locked->page_count, locked->page_array);
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

static const struct file_operations operations = {
	.owner = THIS_MODULE,
	.open = stand_in_open,
	.release = stand_in_close,
	.unlocked_ioctl = nvidia_unlocked_ioctl,
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
