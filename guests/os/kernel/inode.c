/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes and their blocks (format.h), one operation at a time.
 *
 * 1. `lock` is held from the first look at a block to the last change; while it is, no frame is waited for and no user memory touched, since
 *    the pager comes here to make room.
 * 2. An operation changes at most OPERATION_BLOCKS blocks; `begin` commits first where that would not fit.
 * 3. A block freed in the transaction under way is not used again before it has committed: until then the disk's old state, which a crash
 *    brings back, still has it. `freed` has those blocks.
 * 4. A struct inode stays as long as somebody has a reference or a page of it is in the cache.
 */
#include "inode.h"

#include "../../lib/string.h"
#include "blocks.h"
#include "cache.h"
#include "format.h"
#include "inode_internal.h"
#include "kernel.h"
#include "schedule.h"

enum { INODES = 1024, OPERATION_BLOCKS = 12, FREED = 2048, FREE_AT_ONCE = 256 };
enum { BITS = BLOCK_BYTES * 8, INODES_IN_BLOCK = BLOCK_BYTES / FS_INODE_BYTES };

static struct lock lock;
static struct superblock super;
static bool is_mounted;
static struct inode table[INODES];
static uint32_t uses;
static uint32_t freed[FREED];
static unsigned freed_count;
static uint32_t free_blocks, reserved_blocks;
static uint32_t next_block; /* where the search for a free one goes on */
static uint32_t next_inode;

/* ---- transactions ---- */

/* The blocks that the transaction under way frees, in the bitmap at last. */
static int clear_freed(void)
{
    while (freed_count) {
        uint32_t block = freed[freed_count - 1];
        struct buffer *bitmap = block_get(super.bitmap_first + block / BITS);

        if (!bitmap)
            return -EIO;
        ((uint8_t *)bitmap->data)[block % BITS / 8] &= ~(1u << (block & 7));
        block_changed(bitmap);
        block_put(bitmap);
        free_blocks++;
        freed_count--;
    }
    return 0;
}

static int commit(void)
{
    int error = clear_freed();

    return error ? error : log_commit();
}

void fs_begin(void)
{
    lock_acquire(&lock);
    if (!log_has_room(OPERATION_BLOCKS + super.bitmap_blocks) || freed_count + FREE_AT_ONCE > FREED)
        commit();
}

int fs_end(int result)
{
    lock_release(&lock);
    return result;
}

int fs_sync(void)
{
    if (!is_mounted)
        return 0;
    lock_acquire(&lock);
    return fs_end(commit());
}

bool fs_is_mounted(void)
{
    return is_mounted;
}

/* ---- blocks ---- */

static uint32_t take_bit(struct buffer *bitmap, uint32_t first, uint32_t from)
{
    uint32_t *words = bitmap->data;

    for (uint32_t bit = from; bit < BITS && first + bit < super.blocks; bit++) {
        if (words[bit / 32] == 0xFFFFFFFF) {
            bit |= 31;
        } else if (!(words[bit / 32] >> (bit & 31) & 1)) {
            words[bit / 32] |= 1u << (bit & 31);
            block_changed(bitmap);
            return first + bit;
        }
    }
    return 0;
}

/* A free block, or 0. */
static uint32_t allocate_block(void)
{
    for (uint32_t i = 0; free_blocks && i <= super.bitmap_blocks; i++) {
        uint32_t number = (next_block / BITS + i) % super.bitmap_blocks;
        struct buffer *bitmap = block_get(super.bitmap_first + number);
        uint32_t block = bitmap ? take_bit(bitmap, number * BITS, i ? 0 : next_block % BITS) : 0;

        if (bitmap)
            block_put(bitmap);
        if (block) {
            next_block = block + 1 < super.blocks ? block + 1 : super.data_first;
            free_blocks--;
            return block;
        }
    }
    return 0;
}

static void free_block(struct disk_inode *at, uint32_t block)
{
    freed[freed_count++] = block;
    at->blocks--;
}

/* The inode's place in its block, which the caller gives back. */
static struct disk_inode *inode_on_disk(uint32_t number, struct buffer **buffer)
{
    *buffer = block_get(super.inode_first + number / INODES_IN_BLOCK);
    return *buffer ? (struct disk_inode *)(*buffer)->data + number % INODES_IN_BLOCK : NULL;
}

/* A block for a pointer that has none; zeroed if it is to hold pointers or entries. */
static bool fill_pointer(uint32_t *pointer, struct buffer *holder, struct disk_inode *at, bool is_zeroed)
{
    uint32_t block = allocate_block();
    struct buffer *buffer = block && is_zeroed ? block_get_zeroed(block) : NULL;

    if (!block)
        return false;
    if (buffer) {
        block_changed(buffer);
        block_put(buffer);
    }
    *pointer = block;
    at->blocks++;
    block_changed(holder);
    return true;
}

/* One step down a tree of pointers: the entry of the block that `pointer` names. */
static uint32_t *step_down(uint32_t *pointer, struct buffer **holder, uint32_t entry, struct disk_inode *at, bool make)
{
    struct buffer *next;

    if (!*pointer && (!make || !fill_pointer(pointer, *holder, at, true)))
        return NULL;
    next = block_get(*pointer);
    block_put(*holder);
    *holder = next;
    return next ? (uint32_t *)next->data + entry : NULL;
}

/* Where the block of a page is named; *holder is the block with that place, held once more, or null. */
static uint32_t *place_of(struct disk_inode *at, struct buffer *inode_buffer, uint32_t index, struct buffer **holder, bool make)
{
    uint32_t *pointer;

    *holder = inode_buffer;
    inode_buffer->holds++;
    if (index < FS_DIRECT)
        return &at->direct[index];
    index -= FS_DIRECT;
    if (index < FS_POINTERS)
        return step_down(&at->indirect, holder, index, at, make);
    index -= FS_POINTERS;
    if (index / FS_POINTERS >= FS_POINTERS)
        return NULL;
    pointer = step_down(&at->twice_indirect, holder, index / FS_POINTERS, at, make);
    return pointer ? step_down(pointer, holder, index % FS_POINTERS, at, make) : NULL;
}

/* The block of a page: 0 for a hole, or if it could not be made or the disk fails. */
static uint32_t block_of(struct inode *inode, uint32_t index, bool make, bool is_zeroed)
{
    struct buffer *buffer, *holder;
    struct disk_inode *at = inode_on_disk(inode->number, &buffer);
    uint32_t *place = at ? place_of(at, buffer, index, &holder, make) : NULL;
    uint32_t block = place ? *place : 0;

    if (place && !block && make && fill_pointer(place, holder, at, is_zeroed))
        block = *place;
    if (at) {
        if (make) {
            inode->blocks = at->blocks;
            block_changed(buffer);
        }
        if (holder)
            block_put(holder);
        block_put(buffer);
    }
    return block;
}

struct buffer *inode_block(struct inode *inode, uint32_t index, bool make)
{
    uint32_t block = block_of(inode, index, make, true);

    return block ? block_get(block) : NULL;
}

/* ---- inodes ---- */

/* An inode is at its number's place unless another was there first. */
static struct inode *find_inode(uint32_t number)
{
    if (table[number % INODES].number == number)
        return &table[number % INODES];
    for (struct inode *inode = table; inode < table + INODES; inode++)
        if (inode->number == number)
            return inode;
    return NULL;
}

static struct inode *unused_inode(uint32_t number)
{
    struct inode *found = &table[number % INODES];

    if (!found->references && !found->pages)
        return found;
    found = NULL;
    for (struct inode *inode = table; inode < table + INODES; inode++)
        if (!inode->references && !inode->pages && (!found || inode->used_at < found->used_at))
            found = inode;
    return found;
}

bool fs_make_inodes_free(void)
{
    struct inode *oldest = NULL;

    for (struct inode *inode = table; inode < table + INODES; inode++)
        if (!inode->references && inode->links && (!oldest || inode->used_at < oldest->used_at))
            oldest = inode;
    if (!oldest)
        return false;
    oldest->references++;
    cache_flush(oldest);
    if (oldest->references == 1 && oldest->links)
        cache_drop(oldest, 0);
    inode_put(oldest);
    return true;
}

int inode_get_locked(uint32_t number, struct inode **found)
{
    struct buffer *buffer;
    struct inode *inode = number < super.inodes ? find_inode(number) : NULL;
    struct disk_inode *at;

    if (!number || number >= super.inodes)
        return -EIO;
    if (!inode) {
        inode = unused_inode(number);
        at = inode ? inode_on_disk(number, &buffer) : NULL;
        if (!at)
            return inode ? -EIO : -EMFILE;
        *inode = (struct inode){.number = number, .kind = at->kind, .links = at->links, .size = at->size, .blocks = at->blocks};
        block_put(buffer);
    }
    inode->references++;
    inode->used_at = ++uses;
    *found = inode;
    return 0;
}

int inode_get(uint32_t number, struct inode **found)
{
    int error;

    do {
        lock_acquire(&lock);
        error = fs_end(inode_get_locked(number, found));
    } while (error == -EMFILE && fs_make_inodes_free());
    return error;
}

int inode_write(struct inode *inode)
{
    struct buffer *buffer;
    struct disk_inode *at = inode_on_disk(inode->number, &buffer);

    if (!at)
        return -EIO;
    at->kind = inode->kind;
    at->links = inode->links;
    at->size = inode->size;
    block_changed(buffer);
    block_put(buffer);
    return 0;
}

int inode_new(enum file_kind kind, struct inode **made)
{
    if (!unused_inode(next_inode))
        return -EMFILE;
    for (uint32_t i = 0; i < super.inodes; i++) {
        uint32_t number = (next_inode + i) % super.inodes;
        struct buffer *buffer;
        struct disk_inode *at = inode_on_disk(number, &buffer);
        bool is_free = at && number > ROOT_INODE && at->kind == KIND_NONE;
        int error;

        if (!at)
            return -EIO;
        if (is_free) {
            *at = (struct disk_inode){.kind = kind};
            block_changed(buffer);
        }
        block_put(buffer);
        if (!is_free)
            continue;
        next_inode = number + 1;
        error = inode_get_locked(number, made);
        if (!error)
            **made = (struct inode){.number = number, .kind = kind, .references = 1, .used_at = uses};
        return error;
    }
    return -ENOSPC;
}

/* ---- giving blocks back ---- */

/* The last blocks of a tree of pointers, down to index `keep` of it: true if that is done, false if FREE_AT_ONCE were freed before. */
static bool free_tree(struct disk_inode *at, uint32_t *pointer, struct buffer *holder, unsigned levels, uint32_t keep, unsigned *budget)
{
    uint32_t span = levels == 2 ? FS_POINTERS : 1;
    struct buffer *buffer = *pointer ? block_get(*pointer) : NULL;
    uint32_t *entries;

    if (!buffer)
        return true;
    entries = buffer->data;
    for (uint32_t i = FS_POINTERS; i-- > keep / span;) {
        uint32_t kept = i == keep / span ? keep % span : 0;

        if (!entries[i] || (levels == 1 && i < keep))
            continue;
        if (levels == 2 && !free_tree(at, &entries[i], buffer, 1, kept, budget)) {
            block_put(buffer);
            return false;
        }
        if (levels == 1) {
            if (!*budget) {
                block_put(buffer);
                return false;
            }
            --*budget;
            free_block(at, entries[i]);
            entries[i] = 0;
            block_changed(buffer);
        }
    }
    block_put(buffer);
    if (!keep && *budget) {
        --*budget;
        free_block(at, *pointer);
        *pointer = 0;
        block_changed(holder);
    }
    return true;
}

static uint32_t beyond(uint32_t keep, uint32_t first)
{
    return keep > first ? keep - first : 0;
}

/* Frees blocks from the end until `keep` pages are left: true if that is done, false if another turn is needed. */
static bool free_from(struct inode *inode, uint32_t keep)
{
    struct buffer *buffer;
    struct disk_inode *at = inode_on_disk(inode->number, &buffer);
    unsigned budget = 3; /* blocks of pointers at the ends */
    bool done;

    if (!at)
        return true;
    budget = FREE_AT_ONCE - budget;
    done = free_tree(at, &at->twice_indirect, buffer, 2, beyond(keep, FS_DIRECT + FS_POINTERS), &budget) &&
           free_tree(at, &at->indirect, buffer, 1, beyond(keep, FS_DIRECT), &budget);
    for (uint32_t i = FS_DIRECT; done && i-- > keep;)
        if (at->direct[i]) {
            if (!budget) {
                done = false;
                break;
            }
            budget--;
            free_block(at, at->direct[i]);
            at->direct[i] = 0;
        }
    inode->blocks = at->blocks;
    block_changed(buffer);
    block_put(buffer);
    return done;
}

/* Frees what lies behind the end in as many transactions as it takes; the lock is held at the beginning and at the end. */
static void give_back(struct inode *inode, uint32_t keep)
{
    while (!free_from(inode, keep)) {
        lock_release(&lock);
        fs_begin();
    }
}

/* An inode that nothing names and nobody uses. */
static void free_inode(struct inode *inode)
{
    give_back(inode, 0);
    inode->kind = KIND_NONE;
    inode->size = 0;
    inode_write(inode);
    inode->number = 0;
}

void inode_put(struct inode *inode)
{
    if (inode->references == 1 && !inode->links && inode->number) {
        cache_drop(inode, 0);
        fs_begin();
        free_inode(inode);
        fs_end(0);
    }
    inode->references--;
}

int inode_set_size(struct inode *inode, uint64_t size)
{
    bool is_shorter = size < inode->size;

    fs_begin();
    inode->size = size;
    if (is_shorter)
        give_back(inode, (size + BLOCK_BYTES - 1) / BLOCK_BYTES);
    return fs_end(inode_write(inode));
}

/* ---- pages ---- */

int inode_read_page(struct inode *inode, uint32_t index, paddr page)
{
    uint32_t block;

    lock_acquire(&lock);
    block = block_of(inode, index, false, false);
    fs_end(0);
    if (block)
        return data_transfer(DISK_READ, block, &page, 1);
    zero_page(direct(page));
    return 0;
}

/* Runs of blocks that lie in a row go in one transfer. */
static int write_runs(const uint32_t blocks[], const paddr pages[], unsigned count)
{
    int error = 0;

    for (unsigned first = 0, next; !error && first < count; first = next) {
        for (next = first + 1; next < count && blocks[next] == blocks[next - 1] + 1;)
            next++;
        error = data_transfer(DISK_WRITE, blocks[first], pages + first, next - first);
    }
    return error;
}

int inode_write_pages(struct inode *inode, uint32_t first, const paddr pages[], unsigned count)
{
    uint32_t blocks[TRANSFER_BLOCKS];
    unsigned found = 0;
    int error;

    fs_begin();
    while (found < count && (uint64_t)(first + found) * PAGE_BYTES < inode->size) { /* what was cut off meanwhile is not written */
        blocks[found] = block_of(inode, first + found, true, false);
        if (!blocks[found])
            break;
        found++;
    }
    error = write_runs(blocks, pages, found);
    if (!error && found < count && (uint64_t)(first + found) * PAGE_BYTES < inode->size)
        error = -ENOSPC;
    return fs_end(error);
}

int inode_reserve_page(struct inode *inode, uint32_t index)
{
    int result;

    lock_acquire(&lock);
    if (block_of(inode, index, false, false))
        result = 0;
    else if (free_blocks < reserved_blocks + reserved_blocks / 256 + OPERATION_BLOCKS)
        result = -ENOSPC;
    else
        result = 1;
    reserved_blocks += result == 1;
    return fs_end(result);
}

void fs_unreserve(unsigned pages)
{
    reserved_blocks -= pages;
}

/* ---- the mount ---- */

static int count_free_blocks(void)
{
    free_blocks = 0;
    for (uint32_t block = 0; block < super.blocks; block += 32) {
        struct buffer *bitmap = block_get(super.bitmap_first + block / BITS);

        if (!bitmap)
            return -EIO;
        free_blocks += __builtin_popcount(~((uint32_t *)bitmap->data)[block % BITS / 32]);
        block_put(bitmap);
    }
    return 0;
}

/* Files that were open, and had no name any more, when the machine stopped. */
static int free_orphans(void)
{
    for (uint32_t number = ROOT_INODE; number < super.inodes; number++) {
        struct buffer *buffer;
        struct disk_inode *at = inode_on_disk(number, &buffer);
        struct inode *inode;

        if (!at)
            return -EIO;
        block_put(buffer);
        if (at->kind == KIND_NONE || at->links)
            continue;
        if (inode_get(number, &inode) == 0)
            inode_put(inode);
    }
    return 0;
}

static bool is_sound(const struct superblock *at, uint32_t blocks)
{
    return at->magic == FS_MAGIC && at->version == FS_VERSION && at->blocks <= blocks && at->log_first && at->log_blocks > 2 &&
           at->bitmap_first >= at->log_first + at->log_blocks && at->inode_first >= at->bitmap_first + at->bitmap_blocks &&
           at->data_first >= at->inode_first + at->inode_blocks && at->data_first < at->blocks &&
           at->bitmap_blocks == (at->blocks + BITS - 1) / BITS && at->inodes <= at->inode_blocks * INODES_IN_BLOCK && at->inodes > ROOT_INODE;
}

int fs_mount(struct extent extent)
{
    paddr page = frame_alloc(FRAME_ZERO);
    int error = page ? disk_transfer(DISK_READ, extent.first, &page, 1) : -ENOMEM;

    if (error)
        return error;
    memcpy(&super, direct(page), sizeof super);
    frame_free(page);
    if (!is_sound(&super, extent.count))
        return -EINVAL;
    error = blocks_init(extent, super.log_first, super.log_blocks);
    if (!error)
        error = count_free_blocks();
    next_block = super.data_first;
    next_inode = ROOT_INODE + 1;
    if (!error)
        error = free_orphans();
    is_mounted = !error;
    return error;
}
