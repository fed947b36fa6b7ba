/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the kernel's parts, run with `test` on the command line in place of programs. They report in the line protocol of the suite
 * (docs/suites.md). What a test takes it gives back: each ends by comparing the number of free frames.
 */
#include "tests.h"

#include "../../lib/string.h"
#include "cache.h"
#include "disk.h"
#include "files.h"
#include "frames.h"
#include "inode.h"
#include "kernel.h"
#include "pagetable.h"
#include "process.h"
#include "schedule.h"
#include "space.h"
#include "swap.h"

enum { SOME_VA = 0x10000000, FAR_VA = 0x20000000, THREADS = 3, ROUNDS = 4 };

static unsigned passed, failed, skipped;
static const char *name;
static bool has_failed;

static void expect(const char *what, word expected, word seen)
{
    if (expected == seen || has_failed)
        return;
    has_failed = true;
    kprintf("FAIL %s: expected %p, seen %p (%s)\n", name, (void *)expected, (void *)seen, what);
}

static void skip(const char *why)
{
    kprintf("SKIP %s: %s\n", name, why);
    skipped++;
}

/* ---- frames ---- */

static void test_frames(void)
{
    unsigned before = frames_free();
    paddr first = frame_alloc(0), second = frame_alloc(FRAME_ZERO);
    const uint32_t *words = direct(second);
    uint32_t sum = 0;

    expect("two frames differ", 1, first && second && first != second);
    expect("free frames", before - 2, frames_free());
    for (unsigned i = 0; i < PAGE_BYTES / 4; i++)
        sum |= words[i];
    expect("a zeroed frame", 0, sum);
    expect("its kind", FRAME_KERNEL, frame_of(second)->kind);
    frame_free(first);
    frame_free(second);
    expect("free frames at the end", before, frames_free());
    expect("the last one freed is handed out next", second, frame_alloc(0));
    frame_free(second);
}

/* The mark below which only the pager may go. */
static void test_reserve(void)
{
    paddr chain = 0, page;
    unsigned taken = 0;

    while ((page = frame_alloc(0)) != 0) {
        *(paddr *)direct(page) = chain;
        chain = page;
        taken++;
    }
    expect("frames left to the pager", watermarks.min, frames_free());
    page = frame_alloc(FRAME_RESERVE);
    expect("the pager gets one of them", 1, page != 0);
    frame_free(page);
    for (; chain; taken--) {
        page = chain;
        chain = *(paddr *)direct(chain);
        frame_free(page);
    }
    expect("all came back", 0, taken);
}

/* ---- page tables ---- */

static void test_page_tables(void)
{
    unsigned before = frames_free();
    paddr root = pagetable_new();
    pte *entry = pagetable_entry(root, SOME_VA, true);

    expect("no table without `make`", 1, pagetable_entry(root, FAR_VA + pagetable_next(0), false) == NULL);
    expect("an entry is empty at first", 0, *entry);
    expect("the neighbour is the next entry", (word)(entry + 1), (word)pagetable_entry(root, SOME_VA + PAGE_BYTES, false));
    expect("the same address, the same entry", (word)entry, (word)pagetable_entry(root, SOME_VA, true));
    expect("another table has another entry", 1, pagetable_entry(root, pagetable_next(SOME_VA), true) != entry);
    expect("the last address of user space", 1, pagetable_entry(root, USER_END - PAGE_BYTES, true) != NULL);
    pagetable_free(root);
    expect("free frames at the end", before, frames_free());
}

/* ---- address spaces ---- */

static volatile uint32_t *word_at(word va)
{
    return (volatile uint32_t *)va;
}

static struct space *space_with_pages(unsigned pages, unsigned protection)
{
    struct space *space = space_new();

    expect("a region is mapped", 0,
           space_map(space, (struct region){.start = SOME_VA, .end = SOME_VA + pages * PAGE_BYTES, .protection = protection}));
    return space;
}

static void test_regions(void)
{
    unsigned before = frames_free();
    struct space *space = space_with_pages(4, PROT_READ);
    struct region overlapping = {.start = SOME_VA + PAGE_BYTES, .end = SOME_VA + 2 * PAGE_BYTES};
    struct region beyond = {.start = USER_END - PAGE_BYTES, .end = USER_END + PAGE_BYTES};

    expect("an overlap is refused", (word)-EINVAL, space_map(space, overlapping));
    expect("so is the kernel's half", (word)-EINVAL, space_map(space, beyond));
    expect("a read of it is served", 1, space_fault(space, SOME_VA, false));
    expect("a store to it is not", 0, space_fault(space, SOME_VA, true));
    expect("nor is anything outside", 0, space_fault(space, SOME_VA + 4 * PAGE_BYTES, false));
    expect("its front can go", 0, space_unmap(space, SOME_VA, SOME_VA + PAGE_BYTES));
    expect("and is gone", 0, space_fault(space, SOME_VA, false));
    expect("a hole in it cannot", (word)-EINVAL, space_unmap(space, SOME_VA + 2 * PAGE_BYTES, SOME_VA + 3 * PAGE_BYTES));
    space_free(space);
    expect("free frames at the end", before, frames_free());
}

static void test_copy_on_write(void)
{
    unsigned before = frames_free(), shared;
    struct space *parent = space_with_pages(2, PROT_READ | PROT_WRITE), *child;
    struct frame *frame;

    expect("a page for the parent", 1, space_fault(parent, SOME_VA, true));
    space_load(parent);
    *word_at(SOME_VA) = 1;
    child = space_fork(parent);
    frame = frame_of(pte_frame(*pagetable_entry(parent->root, SOME_VA, false)));
    expect("both have the page", 2, frame->mappings);
    expect("and neither may store", 0, *pagetable_entry(child->root, SOME_VA, false) & PTE_WRITABLE);
    shared = frames_free();
    expect("the child stores", 1, space_fault(child, SOME_VA, true));
    expect("which takes a frame", shared - 1, frames_free());
    space_load(child);
    expect("with what the parent had", 1, *word_at(SOME_VA));
    *word_at(SOME_VA) = 2;
    space_load(parent);
    expect("and the parent still has it", 1, *word_at(SOME_VA));
    expect("the parent stores again", 1, space_fault(parent, SOME_VA, true));
    expect("to the same frame", (word)frame, (word)frame_of(pte_frame(*pagetable_entry(parent->root, SOME_VA, false))));
    space_load(NULL);
    space_free(child);
    space_free(parent);
    expect("free frames at the end", before, frames_free());
}

static void test_break(void)
{
    unsigned before = frames_free();
    struct space *space = space_new();
    word old_break = 0;

    space->heap = space->heap_start = SOME_VA;
    expect("the heap grows", 0, space_sbrk(space, 3 * PAGE_BYTES + 1, &old_break));
    expect("from its old end", SOME_VA, old_break);
    expect("a page of it is served", 1, space_fault(space, SOME_VA + 3 * PAGE_BYTES, true));
    expect("it shrinks", 0, space_sbrk(space, -PAGE_BYTES, &old_break));
    expect("and the page is gone", 0, space_fault(space, SOME_VA + 3 * PAGE_BYTES, false));
    expect("not below its start", (word)-ENOMEM, space_sbrk(space, -(intptr_t)(4 * PAGE_BYTES), &old_break));
    expect("not into the mappings", (word)-ENOMEM, space_sbrk(space, USER_MAPPINGS, &old_break));
    space_free(space);
    expect("free frames at the end", before, frames_free());
}

/* ---- the page cache ---- */

static void test_cache(void)
{
    unsigned before = frames_free();
    struct inode *inode = bootfs_find("init");
    struct frame *first = cache_get(inode, 0), *again = cache_get(inode, 0);

    expect("one frame for a page", (word)first, (word)again);
    expect("with two users", 2, first->pins);
    expect("and the file's contents", 0, memcmp(direct(frame_address(first)), inode->archive, PAGE_BYTES));
    cache_put(first);
    cache_put(again);
    expect("it stays when they are gone", 1, inode->pages);
    cache_remove(first);
    expect("until it is removed", 0, inode->pages);
    file_inode_put(inode);
    expect("free frames at the end", before, frames_free());
}

static void test_file(void)
{
    struct inode *root, *file, *found;
    struct frame *page;

    if (!fs_is_mounted()) {
        skip("no file system");
        return;
    }
    expect("the root", 0, inode_get(ROOT_INODE, &root));
    inode_unlink(root, "kernel-test");
    expect("a file is made", 0, inode_create(root, "kernel-test", KIND_FILE, &file));
    expect("not twice", (word)-EEXIST, inode_create(root, "kernel-test", KIND_FILE, &found));
    expect("its size", 0, inode_set_size(file, 3 * PAGE_BYTES));
    page = cache_get_new(file, 1);
    memset(direct(frame_address(page)), 0x5A, PAGE_BYTES);
    cache_mark_dirty(page);
    cache_put(page);
    expect("it is written", 0, cache_flush(file));
    cache_drop(file, 0);
    expect("nothing of it is left in memory", 0, file->pages);
    page = cache_get(file, 1);
    expect("it is read again", 0x5A5A5A5A, *(uint32_t *)direct(frame_address(page)));
    cache_put(page);
    page = cache_get(file, 0);
    expect("a hole reads as zeros", 0, *(uint32_t *)direct(frame_address(page)));
    cache_put(page);
    expect("one block is in use", 1, file->blocks);
    expect("its name goes", 0, inode_unlink(root, "kernel-test"));
    expect("and is not found", (word)-ENOENT, inode_lookup(root, "kernel-test", &found));
    inode_put(file);
    inode_put(root);
    expect("the log takes it all", 0, fs_sync());
}

/* ---- swap ---- */

static void test_slots(void)
{
    unsigned before = swap_used(), count;
    uint32_t first = 0;

    if (!swap_total()) {
        skip("no swap partition");
        return;
    }
    count = swap_alloc(8, &first);
    expect("slots in a row", 8, count);
    swap_share(first);
    for (unsigned i = 0; i < count; i++)
        swap_release(first + i);
    expect("a shared slot stays", before + 1, swap_used());
    swap_release(first);
    expect("until both let it go", before, swap_used());
}

/* More pages than there are frames, each with its number: the pager must move some out and bring all back. */
static void test_paging(void)
{
    unsigned pages = frames_free() + swap_total() / 4;
    struct space *space;
    unsigned wrong = 0;

    if (!swap_total()) {
        skip("no swap partition");
        return;
    }
    space = space_with_pages(pages, PROT_READ | PROT_WRITE);
    current->space = space;
    space_load(space);
    for (unsigned i = 0; i < pages; i++) {
        uint32_t number = i;

        if (!user_copy((void *)(SOME_VA + (word)i * PAGE_BYTES), &number, sizeof number))
            wrong++;
    }
    expect("every page is stored to", 0, wrong);
    expect("some are on the disk", 1, swap_used() >= swap_total() / 8);
    for (unsigned i = 0; i < pages; i++) {
        uint32_t number = ~i;

        if (!user_copy(&number, (void *)(SOME_VA + (word)i * PAGE_BYTES), sizeof number) || number != i)
            wrong++;
    }
    expect("every page has its number", 0, wrong);
    current->space = NULL;
    space_load(NULL);
    space_free(space);
    sleep_ticks(TICKS_PER_SECOND); /* until the pager has written what it had taken before */
    expect("no slot is left", 0, swap_used());
}

/* ---- the scheduler ---- */

static struct lock lock;
static unsigned turns[THREADS * ROUNDS], turn_count, inside, most_inside, finished;

static void take_turns(void *number)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        turns[turn_count++] = (word)number;
        yield();
    }
    for (unsigned i = 0; i < ROUNDS; i++) {
        lock_acquire(&lock);
        inside++;
        most_inside = inside > most_inside ? inside : most_inside;
        sleep_ticks(1);
        inside--;
        lock_release(&lock);
    }
    finished++;
    wake_all(&finished);
    for (;;)
        sleep_on(take_turns);
}

static void test_threads(void)
{
    uint32_t start = ticks;
    unsigned out_of_turn = 0;

    for (word number = 0; number < THREADS; number++)
        thread_create("test", take_turns, (void *)number);
    while (finished < THREADS)
        sleep_on(&finished);
    for (unsigned i = 0; i < THREADS * ROUNDS; i++)
        out_of_turn += turns[i] != i % THREADS;
    expect("turns are taken in order", 0, out_of_turn);
    expect("a lock lets one in", 1, most_inside);
    expect("for as long as it slept", 1, ticks - start >= THREADS * ROUNDS);
}

static void test_sleep(void)
{
    uint32_t start = ticks;

    sleep_ticks(5);
    expect("ticks that passed", 1, ticks - start >= 5 && ticks - start <= 6);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"frames", test_frames},   {"reserve", test_reserve}, {"page tables", test_page_tables}, {"regions", test_regions},
    {"copy on write", test_copy_on_write}, {"break", test_break}, {"cache", test_cache}, {"file", test_file},
    {"slots", test_slots},     {"threads", test_threads}, {"sleep", test_sleep},             {"paging", test_paging},
};

int run_tests(void)
{
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
        unsigned before = skipped;

        name = tests[i].name;
        has_failed = false;
        tests[i].run();
        if (has_failed) {
            failed++;
        } else if (skipped == before) {
            passed++;
            kprintf("PASS %s\n", name);
        }
    }
    kprintf("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed != 0;
}
