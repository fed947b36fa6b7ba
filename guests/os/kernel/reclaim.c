/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making room.
 *
 * The pager is a thread that rests while watermarks.high frames are free. A hand goes round all frames (second chance): a page that was
 * accessed since the last round, as the A bits of its mappings say, stays and loses the bits; another is taken away from who maps it. Clean
 * pages of files are free at once; dirty ones are written; pages of processes go to the swap partition, several in one transfer.
 *
 * 1. Only the pager takes pages away, so a page that it unmaps is not taken twice.
 * 2. An anonymous page's entries name its slot from before the write begins; the frame is busy until it is done.
 * 3. When two rounds freed nothing, the process with the most pages of its own is killed, and whoever waits for memory waits for that.
 */
#include "reclaim.h"

#include "cache.h"
#include "frames.h"
#include "kernel.h"
#include "process.h"
#include "schedule.h"
#include "space.h"
#include "statistics.h"
#include "swap.h"

enum { BATCH = TRANSFER_BLOCKS, ROUNDS = 3, WRITE_BACK_TICKS = 5 * TICKS_PER_SECOND };

static unsigned hand;
static bool is_wanted;   /* somebody needs frames */
static bool is_hopeless; /* and none can be had: who waits is told so */

struct batch {
    struct frame *frames[BATCH];
    unsigned count;
};

static void take_accessed_bit(struct space *space, word va, pte *entry, void *argument)
{
    if (*entry & PTE_ACCESSED) {
        *entry &= ~(pte)PTE_ACCESSED;
        space_flush_page(space, va);
        *(bool *)argument = true;
    }
}

static void unmap_file_page(struct space *space, word va, pte *entry, void *argument)
{
    struct frame *frame = argument;

    if (*entry & PTE_DIRTY)
        cache_mark_dirty(frame);
    *entry = 0;
    frame->mappings--;
    space_flush_page(space, va);
}

static void move_to_slot(struct space *space, word va, pte *entry, void *argument)
{
    uint32_t slot = *(uint32_t *)argument;

    frame_of(pte_frame(*entry))->mappings--;
    *entry = (pte)slot << PAGE_SHIFT | PTE_SWAPPED;
    swap_share(slot);
    space_flush_page(space, va);
}

static void move_back(struct frame *frame, uint32_t slot)
{
    for (struct space *space = spaces; space; space = space->next) {
        pte *entry = pagetable_entry(space->root, frame->page, false);

        if (entry && *entry == ((pte)slot << PAGE_SHIFT | PTE_SWAPPED)) {
            *entry = frame_address(frame) | PTE_PRESENT | PTE_USER | PTE_ACCESSED | PTE_DIRTY;
            frame->mappings++;
            swap_release(slot);
        }
    }
}

static bool is_reclaimable(const struct frame *frame)
{
    return (frame->kind == FRAME_FILE || (frame->kind == FRAME_ANONYMOUS && frame->mappings)) && !frame->busy && !frame->pins;
}

static bool was_accessed(struct frame *frame)
{
    bool accessed = false;

    for_each_mapping(frame, take_accessed_bit, &accessed);
    return accessed;
}

/* A page of a file that nobody used lately: dropped, written first if need be. */
static bool drop_file_page(struct frame *frame)
{
    for_each_mapping(frame, unmap_file_page, frame);
    if (frame->mappings || (frame->dirty && cache_write_back(frame) != 0))
        return false;
    if (frame->kind != FRAME_FILE || !frame->inode || frame->dirty || frame->mappings || frame->pins || frame->busy)
        return false;
    cache_remove(frame);
    return true;
}

/* While the pager slept, some of the batch may have been freed, or become something else. */
static void drop_stale(struct batch *batch)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < batch->count; i++)
        if (batch->frames[i]->kind == FRAME_ANONYMOUS && is_reclaimable(batch->frames[i]))
            batch->frames[kept++] = batch->frames[i];
    batch->count = kept;
}

/* Writes a batch of pages of processes to the swap partition; how many frames that freed. */
static unsigned swap_out(struct batch *batch)
{
    unsigned freed = 0;

    for (drop_stale(batch); batch->count; drop_stale(batch)) {
        paddr pages[BATCH];
        struct frame *moved[BATCH];
        uint32_t first;
        unsigned count = swap_alloc(batch->count, &first);
        int error;

        if (!count)
            break;
        for (unsigned i = 0; i < count; i++) {
            uint32_t slot = first + i;

            moved[i] = batch->frames[--batch->count];
            pages[i] = frame_address(moved[i]);
            moved[i]->busy = true;
            for_each_mapping(moved[i], move_to_slot, &slot);
        }
        error = swap_write(first, pages, count);
        for (unsigned i = 0; i < count; i++) {
            moved[i]->busy = false;
            if (error)
                move_back(moved[i], first + i);
            swap_release(first + i);
            if (!moved[i]->mappings) {
                frame_free(pages[i]);
                freed++;
            }
        }
        if (error)
            break;
    }
    batch->count = 0;
    return freed;
}

/* Once round all frames, or until enough are free; how many were freed. */
static unsigned sweep(void)
{
    struct batch batch = {.count = 0};
    unsigned freed = 0;

    for (unsigned i = 0; i < frame_count && frames_free() + batch.count < watermarks.high; i++) {
        struct frame *frame = &frames[hand];

        hand = hand + 1 < frame_count ? hand + 1 : 0;
        if (!is_reclaimable(frame) || was_accessed(frame))
            continue;
        if (frame->kind == FRAME_FILE) {
            freed += drop_file_page(frame);
        } else if (swap_used() + batch.count < swap_total()) {
            batch.frames[batch.count++] = frame;
            if (batch.count == BATCH)
                freed += swap_out(&batch);
        }
    }
    return freed + swap_out(&batch);
}

static void kill_largest(void)
{
    struct process *largest = NULL;

    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->space && process->pid != INIT_PID && !process->is_killed && (!largest || process->space->anonymous > largest->space->anonymous))
            largest = process;
    is_hopeless = !largest;
    if (!largest)
        return;
    statistics.killed++;
    kprintf("oom: killed %d %s, %u pages\n", largest->pid, largest->name, largest->space->anonymous);
    process_kill(largest);
}

static bool is_someone_dying(void)
{
    for (struct process *process = processes; process < processes + PROCESSES; process++)
        if (process->is_killed && process->space)
            return true;
    return false;
}

static void pager(void *unused)
{
    unsigned barren = 0; /* rounds without a frame */

    (void)unused;
    for (;;) {
        while (!is_wanted && !frames_are_low())
            sleep_on(&hand);
        barren = sweep() ? 0 : barren + 1;
        is_hopeless = is_hopeless && barren;
        if (frames_free() >= watermarks.low) {
            is_wanted = false;
            barren = 0;
        }
        wake_all(&is_wanted);
        if (barren >= ROUNDS && frames_free() <= watermarks.min) {
            if (!is_someone_dying())
                kill_largest();
            barren = 0;
        }
        if (barren)
            sleep_ticks(1); /* others may give something back meanwhile */
        else
            yield();
    }
}

static void writer(void *unused)
{
    (void)unused;
    for (;;) {
        sleep_ticks(WRITE_BACK_TICKS);
        if (fs_is_mounted()) {
            cache_flush(NULL);
            fs_sync();
        }
    }
}

void reclaim_init(void)
{
    thread_create("pager", pager, NULL);
    thread_create("writer", writer, NULL);
}

void wake_pager(void)
{
    wake_all(&hand);
}

bool wait_for_room(void)
{
    if (!can_sleep || !current || (current->is_killed && current->space))
        return false;
    is_wanted = true;
    wake_pager();
    sleep_on(&is_wanted);
    return !is_hopeless && !current->is_killed;
}
