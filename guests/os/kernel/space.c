/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces.
 *
 * 1. An anonymous frame is mapped at one and the same address, frame->page, in every space that has it; all its entries are
 *    read-only as long as there are two.
 * 2. frame->mappings is the number of present entries that lead to a frame; an anonymous frame without one is free.
 * 3. Entries of pages are made with A set, and with D if the page is being stored to; the pager clears A.
 * 4. A slot of the swap partition is named by as many entries as the slot's reference count says (swap.c).
 *
 * A frame is found from its mappings by looking at each space: a file's pages where a region shows the file, an anonymous one at its address.
 */
#include "space.h"

#include "../../lib/string.h"
#include "cache.h"
#include "files.h"
#include "inode.h"
#include "kernel.h"
#include "processor.h"
#include "reclaim.h"
#include "schedule.h"
#include "statistics.h"
#include "swap.h"

enum { SPACES = 64 };
enum { USER_PAGE = PTE_PRESENT | PTE_USER | PTE_ACCESSED };

struct space *spaces;
static struct space pool[SPACES];
static struct space *loaded;

/* ---- regions ---- */

static struct region *region_at(struct space *space, word va)
{
    for (struct region *region = space->regions; region < space->regions + REGIONS; region++)
        if (va >= region->start && va < region->end)
            return region;
    return NULL;
}

static bool is_free_range(const struct space *space, word start, word end)
{
    for (const struct region *region = space->regions; region < space->regions + REGIONS; region++)
        if (start < region->end && end > region->start)
            return false;
    return true;
}

static struct region *unused_region(struct space *space)
{
    for (struct region *region = space->regions; region < space->regions + REGIONS; region++)
        if (region->start == region->end)
            return region;
    return NULL;
}

int space_map(struct space *space, struct region region)
{
    struct region *place = unused_region(space);

    if (region.start >= region.end || region.end > USER_END || ((region.start | region.end) & (PAGE_BYTES - 1)))
        return -EINVAL;
    if (!is_free_range(space, region.start, region.end))
        return -EINVAL;
    if (!place)
        return -ENOMEM;
    if (region.inode)
        region.inode->references++;
    *place = region;
    return 0;
}

word space_find_room(const struct space *space, word bytes)
{
    word at = USER_MAPPINGS;

    if (bytes == 0 || bytes > USER_STACK_TOP - USER_STACK_BYTES - USER_MAPPINGS)
        return 0;
    for (unsigned i = 0; i < REGIONS; i++) { /* until no region moves it further */
        const struct region *region = &space->regions[i];

        if (at < region->end && at + bytes > region->start) {
            at = region->end;
            i = -1;
        }
    }
    return at + bytes <= USER_STACK_TOP - USER_STACK_BYTES ? at : 0;
}

/* ---- entries ---- */

void space_load(struct space *space)
{
    if (space && space != loaded) {
        loaded = space;
        write_cr3(space->root);
    } else if (!space) {
        loaded = NULL;
        write_cr3(physical(kernel_root));
    }
}

void space_flush_page(const struct space *space, word va)
{
    if (space == loaded)
        invlpg(va);
}

static void flush_all(const struct space *space)
{
    if (space == loaded)
        write_cr3(space->root);
}

static void put_page(pte *entry, struct frame *frame, pte flags)
{
    frame->mappings++;
    *entry = frame_address(frame) | USER_PAGE | flags;
}

/* The entry no longer leads to its frame; what its D bit says is kept. */
static void release_page(struct space *space, pte *entry)
{
    struct frame *frame = frame_of(pte_frame(*entry));

    frame->mappings--;
    if (frame->kind == FRAME_FILE) {
        if (*entry & PTE_DIRTY)
            cache_mark_dirty(frame);
    } else {
        space->anonymous--;
        if (!frame->mappings && !frame->pins)
            frame_free(frame_address(frame));
    }
    *entry = 0;
}

static void release_entry(struct space *space, pte *entry)
{
    if (*entry & PTE_PRESENT) {
        release_page(space, entry);
    } else if (*entry & PTE_SWAPPED) {
        swap_release(*entry >> PAGE_SHIFT);
        space->anonymous--;
        *entry = 0;
    }
}

static void release_range(struct space *space, word start, word end)
{
    for (word table = start; table < end; table = pagetable_next(table)) {
        word stop = pagetable_next(table) < end ? pagetable_next(table) : end;
        pte *entry = pagetable_entry(space->root, table, false);

        for (word va = table; entry && va < stop; va += PAGE_BYTES, entry++)
            release_entry(space, entry);
    }
}

static void drop_region(struct space *space, struct region *region)
{
    release_range(space, region->start, region->end);
    if (region->inode)
        file_inode_put(region->inode);
    *region = (struct region){0};
}

int space_unmap(struct space *space, word start, word end)
{
    struct region *region = region_at(space, start);

    if (!region || (start | end) & (PAGE_BYTES - 1) || start >= end)
        return -EINVAL;
    if (region->start != start || region->end < end) /* mappings go whole, or from their beginning */
        return -EINVAL;
    release_range(space, start, end);
    flush_all(space);
    if (region->end == end) {
        drop_region(space, region);
    } else {
        region->first_page += (end - start) >> PAGE_SHIFT;
        region->file_bytes = region->file_bytes > end - start ? region->file_bytes - (end - start) : 0;
        region->start = end;
    }
    return 0;
}

int space_sbrk(struct space *space, intptr_t change, word *old_break)
{
    word old_end = (space->heap + PAGE_BYTES - 1) & -(word)PAGE_BYTES;
    word heap = space->heap + change;
    word end = (heap + PAGE_BYTES - 1) & -(word)PAGE_BYTES;

    *old_break = space->heap;
    if (change > 0 ? heap < space->heap || heap > USER_MAPPINGS : heap > space->heap || heap < space->heap_start)
        return -ENOMEM;
    if (end < old_end) {
        release_range(space, end, old_end);
        flush_all(space);
    }
    for (struct region *region = space->regions; region < space->regions + REGIONS; region++)
        if (region->start == space->heap_start && region->end == old_end && region->start != region->end) {
            region->end = end;
            space->heap = heap;
            return 0;
        }
    space->heap = heap;
    if (end == old_end)
        return 0;
    return space_map(space, (struct region){.start = space->heap_start, .end = end, .protection = PROT_READ | PROT_WRITE});
}

/* ---- making, copying and freeing spaces ---- */

struct space *space_new(void)
{
    for (struct space *space = pool; space < pool + SPACES; space++) {
        if (space->root)
            continue;
        *space = (struct space){.root = 1}; /* taken, while this sleeps */
        space->root = pagetable_new();
        if (!space->root)
            return NULL;
        space->next = spaces;
        spaces = space;
        return space;
    }
    return NULL;
}

/* Both sides of a fork get the same pages, read-only where they are private; file pages are found again by faults. */
static bool share_range(struct space *parent, struct space *child, word start, word end)
{
    for (word table = start; table < end; table = pagetable_next(table)) {
        word stop = pagetable_next(table) < end ? pagetable_next(table) : end;
        pte *from = pagetable_entry(parent->root, table, false);
        pte *to = from ? pagetable_entry(child->root, table, true) : NULL; /* may sleep: entries are read after it */

        if (from && !to)
            return false;
        for (word va = table; from && va < stop; va += PAGE_BYTES, from++, to++) {
            if (*from & PTE_PRESENT && frame_of(pte_frame(*from))->kind == FRAME_ANONYMOUS) {
                *from &= ~(pte)PTE_WRITABLE;
                *to = *from;
                frame_of(pte_frame(*from))->mappings++;
                child->anonymous++;
            } else if (!(*from & PTE_PRESENT) && *from & PTE_SWAPPED) {
                swap_share(*from >> PAGE_SHIFT);
                *to = *from;
                child->anonymous++;
            }
        }
    }
    return true;
}

struct space *space_fork(struct space *parent)
{
    struct space *child = space_new();
    bool done = child != NULL;

    for (unsigned i = 0; done && i < REGIONS; i++) {
        struct region *region = &parent->regions[i];

        if (region->start == region->end)
            continue;
        child->regions[i] = *region;
        if (region->inode)
            region->inode->references++;
        done = share_range(parent, child, region->start, region->end);
    }
    flush_all(parent);
    if (!done) {
        if (child)
            space_free(child);
        return NULL;
    }
    child->heap = parent->heap;
    child->heap_start = parent->heap_start;
    return child;
}

void space_free(struct space *space)
{
    struct space **link = &spaces;
    paddr root = space->root;

    if (space == loaded)
        space_load(NULL);
    for (struct region *region = space->regions; region < space->regions + REGIONS; region++)
        if (region->start != region->end)
            drop_region(space, region);
    while (*link != space)
        link = &(*link)->next;
    *link = space->next;
    pagetable_free(root);
    space->root = 0;
}

/* ---- faults ---- */

/* A frame for a page of a process; null when memory is out. */
static struct frame *new_page(word va, unsigned flags)
{
    paddr page = frame_alloc(FRAME_MAY_WAIT | flags);

    if (!page)
        return NULL;
    frame_set_kind(frame_of(page), FRAME_ANONYMOUS);
    frame_of(page)->page = va;
    return frame_of(page);
}

/* An anonymous page that is nobody's yet takes the place of what the entry had, if that is still so after the sleep. */
static bool install(struct space *space, word va, pte *entry, pte expected, struct frame *frame, pte flags)
{
    if (*entry != expected) {
        frame_free(frame_address(frame));
        return true; /* the access is tried again */
    }
    put_page(entry, frame, flags);
    space->anonymous++;
    space_flush_page(space, va);
    return true;
}

static bool fill_with_zeros(struct space *space, word va, pte *entry, pte flags)
{
    struct frame *frame = new_page(va, FRAME_ZERO);

    return frame && install(space, va, entry, 0, frame, flags);
}

static bool fill_from_swap(struct space *space, word va, pte *entry, pte flags)
{
    pte swapped = *entry;
    struct frame *frame = new_page(va, 0);

    if (!frame)
        return false;
    frame->pins++;
    if (swap_read(swapped >> PAGE_SHIFT, frame) != 0) {
        frame->pins--;
        frame_free(frame_address(frame));
        return false;
    }
    frame->pins--;
    if (*entry == swapped) {
        swap_release(swapped >> PAGE_SHIFT);
        space->anonymous--;
    }
    return install(space, va, entry, swapped, frame, flags | PTE_DIRTY);
}

/* A pinned page may have lost its file, or its mappings, meanwhile: then nobody else frees it. */
static void unpin(struct frame *frame)
{
    if (frame->kind == FRAME_FILE) {
        cache_put(frame);
        return;
    }
    frame->pins--;
    if (!frame->pins && !frame->mappings)
        frame_free(frame_address(frame));
}

static bool copy_for_writer(struct space *space, word va, pte *entry)
{
    pte old = *entry;
    struct frame *from = frame_of(pte_frame(old));
    struct frame *to;

    if (from->kind == FRAME_ANONYMOUS && from->mappings == 1 && !from->busy) {
        *entry |= PTE_WRITABLE | PTE_ACCESSED | PTE_DIRTY;
        space_flush_page(space, va);
        return true;
    }
    from->pins++;
    to = new_page(va, 0);
    unpin(from);
    if (!to)
        return false;
    if (*entry != old && (*entry ^ old) & ~(pte)(PTE_ACCESSED | PTE_DIRTY)) {
        frame_free(frame_address(to));
        return true;
    }
    copy_page(direct(frame_address(to)), direct(frame_address(from)));
    statistics.cow_copies++;
    release_page(space, entry);
    return install(space, va, entry, 0, to, PTE_WRITABLE | PTE_DIRTY);
}

/* The first store to a page of a file since it was clean; false if the disk has no room for it: nobody could ever write it. */
static bool store_to_file(struct space *space, word va, pte *entry)
{
    struct frame *page = frame_of(pte_frame(*entry));
    int error;

    page->pins++;
    error = cache_reserve(page);
    if (!error && *entry & PTE_PRESENT && pte_frame(*entry) == frame_address(page)) {
        *entry |= PTE_WRITABLE | PTE_DIRTY;
        space_flush_page(space, va);
    }
    cache_put(page);
    return !error;
}

/* A page of a file: mapped as it is in the cache, or copied where a private mapping stores to it, or ends in the middle of it. */
static bool fill_from_file(struct space *space, struct region *region, word va, pte *entry, bool write)
{
    word offset = va - region->start;
    word bytes = region->file_bytes - offset;
    bool is_copied = !region->is_shared && (write || bytes < PAGE_BYTES);
    struct frame *page = cache_get(region->inode, region->first_page + (offset >> PAGE_SHIFT));
    struct frame *copy;
    int error;

    if (!page)
        return false;
    if (!is_copied) {
        error = write ? cache_reserve(page) : 0;
        if (!error && *entry == 0 && page->inode)
            put_page(entry, page, write ? PTE_WRITABLE | PTE_DIRTY : 0);
        cache_put(page);
        return !error;
    }
    copy = new_page(va, 0);
    if (copy) {
        copy_page(direct(frame_address(copy)), direct(frame_address(page)));
        if (bytes < PAGE_BYTES)
            memset((uint8_t *)direct(frame_address(copy)) + bytes, 0, PAGE_BYTES - bytes);
    }
    cache_put(page);
    return copy && install(space, va, entry, 0, copy, write ? PTE_WRITABLE | PTE_DIRTY : 0);
}

static bool fault_once(struct space *space, struct region *region, word va, bool write)
{
    pte *entry = pagetable_entry(space->root, va, true);
    pte flags = write ? PTE_WRITABLE | PTE_DIRTY : 0;

    if (!entry)
        return false;
    if (*entry & PTE_PRESENT) {
        if (!write || *entry & PTE_WRITABLE)
            return true;
        return region->is_shared ? store_to_file(space, va, entry) : copy_for_writer(space, va, entry);
    }
    if (*entry & PTE_SWAPPED)
        return fill_from_swap(space, va, entry, flags);
    if (region->inode && va - region->start < region->file_bytes)
        return fill_from_file(space, region, va, entry, write);
    return fill_with_zeros(space, va, entry, flags);
}

bool space_fault(struct space *space, word va, bool write)
{
    struct region *region = region_at(space, va);

    if (!region || !(region->protection & (write ? PROT_WRITE : PROT_READ | PROT_EXEC)))
        return false;
    statistics.faults++;
    return fault_once(space, region, va & -(word)PAGE_BYTES, write);
}

/* ---- from a frame to its mappings ---- */

static void visit_entry(struct space *space, word va, struct frame *frame, void (*visit)(struct space *, word, pte *, void *), void *argument)
{
    pte *entry = pagetable_entry(space->root, va, false);

    if (entry && *entry & PTE_PRESENT && pte_frame(*entry) == frame_address(frame))
        visit(space, va, entry, argument);
}

void for_each_mapping(struct frame *frame, void (*visit)(struct space *space, word va, pte *entry, void *argument), void *argument)
{
    for (struct space *space = spaces; space && frame->mappings; space = space->next) {
        if (frame->kind == FRAME_ANONYMOUS) {
            visit_entry(space, frame->page, frame, visit, argument);
            continue;
        }
        for (struct region *region = space->regions; region < space->regions + REGIONS; region++) {
            word pages = (region->end - region->start) >> PAGE_SHIFT;

            if (region->inode == frame->inode && frame->page - region->first_page < pages)
                visit_entry(space, region->start + ((frame->page - region->first_page) << PAGE_SHIFT), frame, visit, argument);
        }
    }
}
