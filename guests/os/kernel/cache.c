/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page cache.
 *
 * 1. A frame of kind FILE is in the bucket of (inode, index), once, from cache_get until cache_remove or cache_drop.
 * 2. While it is busy its contents are on their way from or to the disk: who wants them waits on its address.
 * 3. Pages of the boot archive and clean pages can be dropped at any time; dirty ones only after a write.
 */
#include "cache.h"

#include "../../lib/string.h"
#include "files.h"
#include "kernel.h"
#include "schedule.h"
#include "space.h"
#include "statistics.h"

enum { BUCKETS = 1024 };

struct statistics statistics;
static struct frame *buckets[BUCKETS];
static unsigned dirty_pages;

static struct frame **bucket_of(const struct inode *inode, uint32_t index)
{
    return &buckets[((word)inode >> 5 ^ index) % BUCKETS];
}

static struct frame *find(const struct inode *inode, uint32_t index)
{
    struct frame *frame = *bucket_of(inode, index);

    while (frame && (frame->inode != inode || frame->page != index))
        frame = frame->next;
    return frame;
}

static void unlink_frame(struct frame *frame)
{
    struct frame **link = bucket_of(frame->inode, frame->page);

    while (*link != frame)
        link = &(*link)->next;
    *link = frame->next;
    fs_unreserve(frame->reserved);
    frame->reserved = false;
    frame->inode->pages--;
    frame->inode = NULL;
}

static void set_dirty(struct frame *frame, bool dirty)
{
    dirty_pages += dirty - frame->dirty;
    frame->dirty = dirty;
}

static struct frame *insert(struct inode *inode, uint32_t index)
{
    paddr page = frame_alloc(FRAME_MAY_WAIT);
    struct frame *frame = frame_of(page);
    struct frame **bucket = bucket_of(inode, index);

    if (!page)
        return NULL;
    if (find(inode, index)) { /* another was faster */
        frame_free(page);
        return find(inode, index);
    }
    frame_set_kind(frame, FRAME_FILE);
    frame->inode = inode;
    frame->page = index;
    frame->busy = true;
    frame->next = *bucket;
    *bucket = frame;
    inode->pages++;
    return frame;
}

static void end_busy(struct frame *frame)
{
    frame->busy = false;
    wake_all(frame);
}

/* Pins the page, waiting while it is busy; null if it left the cache meanwhile. */
static struct frame *pin(struct frame *frame)
{
    frame->pins++;
    while (frame->busy)
        sleep_on(frame);
    if (frame->inode)
        return frame;
    cache_put(frame);
    return NULL;
}

static struct frame *get(struct inode *inode, uint32_t index, bool is_read)
{
    for (;;) {
        struct frame *frame = find(inode, index);
        bool is_mine = false;

        if (!frame) {
            frame = insert(inode, index);
            if (!frame)
                return NULL;
            is_mine = frame->busy && !frame->pins;
        }
        if (!is_mine) {
            frame = pin(frame);
            if (frame)
                return frame;
            continue;
        }
        frame->pins++;
        statistics.file_reads += is_read;
        if (is_read && file_read_page(inode, index, frame_address(frame)) != 0) {
            unlink_frame(frame);
            end_busy(frame);
            cache_put(frame);
            return NULL;
        }
        end_busy(frame);
        return frame;
    }
}

struct frame *cache_get(struct inode *inode, uint32_t index)
{
    return get(inode, index, true);
}

struct frame *cache_get_new(struct inode *inode, uint32_t index)
{
    return get(inode, index, false);
}

/* The last to let go of a page that has left the cache frees it. */
void cache_put(struct frame *frame)
{
    frame->pins--;
    if (!frame->inode && !frame->pins && !frame->mappings)
        frame_free(frame_address(frame));
}

/* A page that left the cache while its user slept is not written any more. */
void cache_mark_dirty(struct frame *frame)
{
    if (frame->inode)
        set_dirty(frame, true);
}

int cache_reserve(struct frame *frame)
{
    int result = frame->reserved || frame->dirty ? 0 : inode_reserve_page(frame->inode, frame->page);

    if (result == 1 && (frame->reserved || !frame->inode)) /* another was faster, or the page left the cache */
        fs_unreserve(1);
    else
        frame->reserved |= result == 1;
    return result < 0 ? result : 0;
}

static void take_dirty_bit(struct space *space, word va, pte *entry, void *argument)
{
    if (*entry & PTE_DIRTY) {
        *entry &= ~(pte)(PTE_DIRTY | PTE_WRITABLE); /* the next store is a fault, and D is set again */
        space_flush_page(space, va);
        *(bool *)argument = true;
    }
}

/* Pins a page and makes it busy, clean from now on, if it is dirty and nobody has it under way; false: it is left alone. */
static bool begin_write(struct frame *frame)
{
    bool was_stored_to = false;

    for_each_mapping(frame, take_dirty_bit, &was_stored_to);
    if (!frame->dirty && !was_stored_to)
        return false;
    frame->pins++;
    frame->busy = true;
    set_dirty(frame, false);
    return true;
}

static void end_write(struct frame *frame, int error)
{
    statistics.file_writes++;
    if (error) {
        set_dirty(frame, true);
    } else {
        fs_unreserve(frame->reserved);
        frame->reserved = false;
    }
    end_busy(frame);
    cache_put(frame);
}

/* A dirty page and those that follow it in the file, in one go. */
static int write_run(struct frame *first)
{
    struct inode *inode = first->inode;
    struct frame *run[TRANSFER_BLOCKS] = {first};
    paddr pages[TRANSFER_BLOCKS] = {frame_address(first)};
    unsigned count = 1;
    int error;

    for (struct frame *next; count < TRANSFER_BLOCKS; count++) {
        next = find(inode, first->page + count);
        if (!next || next->busy || !begin_write(next))
            break;
        run[count] = next;
        pages[count] = frame_address(next);
    }
    inode->references++; /* it stays, whatever its users do */
    error = inode_write_pages(inode, first->page, pages, count);
    for (unsigned i = 0; i < count; i++)
        end_write(run[i], error);
    file_inode_put(inode);
    return error;
}

/* The first of the dirty pages in a row that end with this one, as many as a transfer takes. */
static struct frame *start_of_run(struct frame *frame)
{
    for (unsigned count = 1; count < TRANSFER_BLOCKS && frame->page; count++) {
        struct frame *before = find(frame->inode, frame->page - 1);

        if (!before || before->busy || !before->dirty)
            break;
        frame = before;
    }
    return frame;
}

int cache_write_back(struct frame *frame)
{
    struct frame *first;
    int error = 0;

    frame->pins++;
    while (frame->busy)
        sleep_on(frame);
    first = frame->inode && frame->dirty ? start_of_run(frame) : frame;
    if (first->inode && begin_write(first))
        error = write_run(first);
    cache_put(frame);
    return error;
}

static void look_for_dirty_bit(struct space *space, word va, pte *entry, void *argument)
{
    (void)space;
    (void)va;
    if (*entry & PTE_DIRTY)
        *(bool *)argument = true;
}

static bool is_dirty(struct frame *frame)
{
    bool dirty = frame->dirty;

    if (!dirty && frame->mappings)
        for_each_mapping(frame, look_for_dirty_bit, &dirty);
    return dirty;
}

static int flush(struct frame *frame)
{
    return frame->inode && !frame->inode->archive && is_dirty(frame) ? cache_write_back(frame) : 0;
}

static int flush_file(struct inode *inode)
{
    uint32_t end = (inode->size + PAGE_BYTES - 1) >> PAGE_SHIFT;
    int error = 0;

    for (uint32_t index = 0; inode->pages && index < end; index++) {
        struct frame *frame = find(inode, index);
        int result = frame ? flush(frame) : 0;

        error = error ? error : result;
    }
    return error;
}

int cache_flush(struct inode *inode)
{
    int error = 0;

    if (inode)
        return flush_file(inode);
    for (unsigned i = 0; i < frame_count; i++) {
        int result = frames[i].kind == FRAME_FILE ? flush(&frames[i]) : 0;

        error = error ? error : result;
    }
    return error;
}

void cache_remove(struct frame *frame)
{
    unlink_frame(frame);
    frame_free(frame_address(frame));
}

static void unmap(struct space *space, word va, pte *entry, void *argument)
{
    (void)argument;
    frame_of(pte_frame(*entry))->mappings--;
    *entry = 0;
    space_flush_page(space, va);
}

static void drop(struct frame *frame)
{
    struct inode *inode = frame->inode;

    frame->pins++;
    while (frame->busy)
        sleep_on(frame);
    if (frame->inode == inode) {
        for_each_mapping(frame, unmap, NULL);
        set_dirty(frame, false);
        unlink_frame(frame);
    }
    cache_put(frame);
}

void cache_drop(struct inode *inode, uint32_t from_index)
{
    uint32_t end = (inode->size + PAGE_BYTES - 1) >> PAGE_SHIFT;

    for (uint32_t index = from_index; inode->pages && index < end; index++) {
        struct frame *frame = find(inode, index);

        if (frame)
            drop(frame);
    }
    for (unsigned i = 0; inode->pages && !from_index && i < frame_count; i++) /* beyond the end, from mappings */
        if (frames[i].kind == FRAME_FILE && frames[i].inode == inode)
            drop(&frames[i]);
}

unsigned cache_dirty_pages(void)
{
    return dirty_pages;
}
