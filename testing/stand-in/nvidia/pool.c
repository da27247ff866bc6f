// SPDX-License-Identifier: GPL-2.0
/*
 * Drivers from 590 on keep freed pages: a pool for each node and page size, on its dirty list until a worker has
 * cleared them, on its clean list until somebody asks, and given back to the kernel by a shrinker.
 */
#include <linux/debugfs.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/version.h>
#include <linux/workqueue.h>

#include "nv.h"

/* Sizes that have a pool, a bit each in units of 4 KiB: 4 KiB, 64 KiB, 2 MiB. */
#define POOLED_SIZES 0x211
#define ORDERS 11

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
#define SHRINKER_IN_POOL
#endif

typedef struct nv_page_pool_t {
	struct list_head clean_list;
	struct list_head dirty_list;
	struct work_struct scrubber;
	int node_id;
	unsigned int order;
	unsigned long pages_owned; /* blocks of this order */
	struct mutex lock;
	struct shrinker *shrinker;
#ifdef SHRINKER_IN_POOL
	struct shrinker _shrinker;
#endif
} nv_page_pool_t;

struct entry {
	unsigned long virt_addr;
	struct list_head node;
};

nv_page_pool_t *sysmem_page_pools[MAX_NUMNODES][ORDERS];
static struct workqueue_struct *scrubbers;

static nv_page_pool_t *pool_of(int node, unsigned int order)
{
	return order < ORDERS ? sysmem_page_pools[node][order] : NULL;
}

static unsigned long take(struct list_head *to, struct list_head *from, unsigned long most)
{
	unsigned long taken = 0;

	for (; taken < most && !list_empty(from); taken++)
		list_move(from->next, to);
	return taken;
}

static void give_back(struct list_head *list, unsigned int order)
{
	struct entry *entry, *next;

	list_for_each_entry_safe(entry, next, list, node) {
		free_pages(entry->virt_addr, order);
		kfree(entry);
	}
}

static void clear(struct entry *entry, unsigned int order)
{
	unsigned int i;

	for (i = 0; i < 1u << order; i++)
		clear_page((void *)(entry->virt_addr + i * PAGE_SIZE));
	cond_resched();
}

static void scrub(struct work_struct *work)
{
	nv_page_pool_t *pool = container_of(work, nv_page_pool_t, scrubber);
	struct entry *entry = NULL;

	for (;;) {
		mutex_lock(&pool->lock);
		if (entry)
			list_add(&entry->node, &pool->clean_list);
		entry = list_first_entry_or_null(&pool->dirty_list, struct entry, node);
		if (entry)
			list_del(&entry->node);
		mutex_unlock(&pool->lock);
		if (!entry)
			break;
		clear(entry, pool->order);
	}
}

/* Takes what the pool of the allocation's size has, and says how many blocks that is. */
noinline u32 nv_mem_pool_alloc_pages(nv_alloc_t *at)
{
	nv_page_pool_t *pool = pool_of(numa_mem_id(), at->order);
	struct entry *entry, *next;
	LIST_HEAD(clean);
	LIST_HEAD(dirty);
	u32 i = 0, wanted = nv_blocks(at), taken;

	if (!pool)
		return 0;
	mutex_lock(&pool->lock);
	taken = take(&clean, &pool->clean_list, wanted);
	taken += take(&dirty, &pool->dirty_list, wanted - taken);
	pool->pages_owned -= taken;
	mutex_unlock(&pool->lock);
	list_for_each_entry(entry, &dirty, node)
		clear(entry, at->order);
	list_splice(&dirty, &clean);
	list_for_each_entry_safe(entry, next, &clean, node) {
		nv_set_page(at, i++, entry->virt_addr);
		kfree(entry);
	}
	return taken;
}

/* Keeps the allocation's pages; false where no pool is for them. */
noinline bool nv_mem_pool_free_pages(nv_alloc_t *at)
{
	unsigned long first = nv_block(at, 0)->virt_addr;
	nv_page_pool_t *pool = first ? pool_of(page_to_nid(virt_to_page((void *)first)), at->order) : NULL;
	u32 i, added = 0, blocks = nv_blocks(at);
	LIST_HEAD(freed);

	if (!pool)
		return false;
	for (i = 0; i < blocks; i++) {
		unsigned long virt_addr = nv_block(at, i)->virt_addr;
		struct entry *entry;

		if (!virt_addr) /* the allocation failed here */
			break;
		entry = page_to_nid(virt_to_page((void *)virt_addr)) == pool->node_id ?
				kzalloc(sizeof(*entry), GFP_KERNEL) : NULL;
		if (!entry) {
			free_pages(virt_addr, at->order);
			continue;
		}
		entry->virt_addr = virt_addr;
		list_add(&entry->node, &freed);
		added++;
	}
	mutex_lock(&pool->lock);
	list_splice(&freed, &pool->dirty_list);
	pool->pages_owned += added;
	mutex_unlock(&pool->lock);
	queue_work(scrubbers, &pool->scrubber);
	return true;
}

static nv_page_pool_t *of_shrinker(struct shrinker *shrinker)
{
#ifdef SHRINKER_IN_POOL
	return container_of(shrinker, nv_page_pool_t, _shrinker);
#else
	return shrinker->private_data;
#endif
}

static unsigned long nv_mem_pool_shrinker_count(struct shrinker *shrinker, struct shrink_control *sc)
{
	nv_page_pool_t *pool = of_shrinker(shrinker);
	unsigned long owned;

	if (sc->nid != pool->node_id)
		return SHRINK_EMPTY;
	mutex_lock(&pool->lock);
	owned = pool->pages_owned;
	mutex_unlock(&pool->lock);
	return owned ?: SHRINK_EMPTY;
}

static unsigned long nv_mem_pool_shrinker_scan(struct shrinker *shrinker, struct shrink_control *sc)
{
	nv_page_pool_t *pool = of_shrinker(shrinker);
	unsigned long freed;
	LIST_HEAD(reclaimed);

	if (sc->nid != pool->node_id)
		return SHRINK_STOP;
	mutex_lock(&pool->lock);
	freed = take(&reclaimed, &pool->dirty_list, sc->nr_to_scan);
	freed += take(&reclaimed, &pool->clean_list, sc->nr_to_scan - freed);
	pool->pages_owned -= freed;
	mutex_unlock(&pool->lock);
	give_back(&reclaimed, pool->order);
	return freed ?: SHRINK_STOP;
}

/*
 * Where a kernel is built with CONFIG_SHRINKER_DEBUG it shows each shrinker's count below /sys/kernel/debug/shrinker,
 * and a file that makes it work. Debian's kernels are not, so the pools' files are made here, with the same names and
 * text (mm/shrinker_debug.c).
 */
#ifndef CONFIG_SHRINKER_DEBUG
static struct dentry *shrinkers;

static int count_show(struct seq_file *out, void *unused)
{
	nv_page_pool_t *pool = out->private;
	unsigned long owned;
	int node;

	mutex_lock(&pool->lock);
	owned = pool->pages_owned;
	mutex_unlock(&pool->lock);
	if (!owned)
		return 0;
	seq_puts(out, "1"); /* inode number of the root cgroup */
	for_each_node(node)
		seq_printf(out, " %lu", node == pool->node_id ? owned : 0);
	seq_putc(out, '\n');
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(count);

/* As shrinker_debugfs_scan_write: inode number of a memory cgroup, a node, how many objects to look at. */
static ssize_t scan_write(struct file *file, const char __user *user, size_t size, loff_t *position)
{
	nv_page_pool_t *pool = file->private_data;
	struct shrink_control sc = {};
	unsigned long inode, objects;
	char text[72];
	size_t length = min(size, sizeof(text) - 1);
	int node;

	if (copy_from_user(text, user, length))
		return -EFAULT;
	text[length] = '\0';
	if (sscanf(text, "%lu %d %lu", &inode, &node, &objects) != 3)
		return -EINVAL;
	/* None of these shrinkers goes by cgroups. */
	if (node < 0 || node >= nr_node_ids || inode)
		return -EINVAL;
	if (!objects)
		return size;
	sc.gfp_mask = GFP_KERNEL;
	sc.nid = node;
	sc.nr_to_scan = objects;
	sc.nr_scanned = objects;
	nv_mem_pool_shrinker_scan(pool->shrinker, &sc);
	return size;
}

static const struct file_operations scan_fops = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.write = scan_write,
};

static void show_pool(nv_page_pool_t *pool)
{
	static unsigned int number;
	struct dentry *dir;
	char name[64];

	if (!shrinkers)
		shrinkers = debugfs_create_dir("shrinker", NULL);
	snprintf(name, sizeof(name), "nv-sysmem-alloc-node-%d-order-%u-%u", pool->node_id, pool->order, number++);
	dir = debugfs_create_dir(name, shrinkers);
	debugfs_create_file("count", 0440, dir, pool, &count_fops);
	debugfs_create_file("scan", 0220, dir, pool, &scan_fops);
}

static void hide_pools(void)
{
	debugfs_remove_recursive(shrinkers);
}
#else
static void show_pool(nv_page_pool_t *pool)
{
}

static void hide_pools(void)
{
}
#endif

static int register_pool(nv_page_pool_t *pool)
{
	int error = 0;
	struct shrinker *shrinker;

#ifdef SHRINKER_IN_POOL
	shrinker = &pool->_shrinker;
	shrinker->flags = SHRINKER_NUMA_AWARE;
#else
	shrinker = shrinker_alloc(SHRINKER_NUMA_AWARE, "nv-sysmem-alloc-node-%d-order-%u", pool->node_id, pool->order);
	if (!shrinker)
		return -ENOMEM;
	shrinker->private_data = pool;
#endif
	shrinker->count_objects = nv_mem_pool_shrinker_count;
	shrinker->scan_objects = nv_mem_pool_shrinker_scan;
	shrinker->seeks = 1;
#ifdef SHRINKER_IN_POOL
	error = register_shrinker(shrinker, "nv-sysmem-alloc-node-%d-order-%u", pool->node_id, pool->order);
	if (error)
		return error;
#else
	shrinker_register(shrinker);
#endif
	pool->shrinker = shrinker;
	show_pool(pool);
	return error;
}

static void destroy(nv_page_pool_t *pool)
{
	if (pool->shrinker) {
#ifdef SHRINKER_IN_POOL
		unregister_shrinker(pool->shrinker);
#else
		shrinker_free(pool->shrinker);
#endif
	}
	cancel_work_sync(&pool->scrubber);
	give_back(&pool->dirty_list, pool->order);
	give_back(&pool->clean_list, pool->order);
	kfree(pool);
}

static nv_page_pool_t *create(int node, unsigned int order)
{
	nv_page_pool_t *pool = kzalloc(sizeof(*pool), GFP_KERNEL);

	if (!pool)
		return NULL;
	pool->node_id = node;
	pool->order = order;
	INIT_LIST_HEAD(&pool->clean_list);
	INIT_LIST_HEAD(&pool->dirty_list);
	INIT_WORK(&pool->scrubber, scrub);
	mutex_init(&pool->lock);
	if (register_pool(pool)) {
		destroy(pool);
		return NULL;
	}
	return pool;
}

int nv_init_page_pools(void)
{
	unsigned int order;
	int node;

	scrubbers = alloc_workqueue("nv_mem_pool_scrubber", WQ_UNBOUND, 0);
	if (!scrubbers)
		return -ENOMEM;
	for_each_online_node(node) {
		for (order = 0; order < ORDERS; order++) {
			if (!(POOLED_SIZES & ((PAGE_SIZE << order) >> 12)))
				continue;
			sysmem_page_pools[node][order] = create(node, order);
			if (!sysmem_page_pools[node][order])
				return -ENOMEM;
		}
	}
	return 0;
}

void nv_destroy_page_pools(void)
{
	unsigned int order;
	int node;

	hide_pools();
	for_each_node(node)
		for (order = 0; order < ORDERS; order++)
			if (sysmem_page_pools[node][order])
				destroy(sysmem_page_pools[node][order]);
	if (scrubbers)
		destroy_workqueue(scrubbers);
}
