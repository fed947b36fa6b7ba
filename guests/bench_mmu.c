/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench_mmu.h"

#include "lib/exit.h"
#include "lib/interrupts.h"
#include "lib/string.h"

enum {
    SPACES_VA = 0x40400000,
    REMAP_VA = 0x40C00000,
    BULK_VA = 0x41000000, /* four tables */
    FORK_VA = 0x42000000,
    WP_VA = 0x42400000,
};

enum { SPACE_PAGES = 64, BULK_PAGES = 4096, FORK_PAGES = 256, WRITTEN_SHARE = 16, COPIES = FORK_PAGES / WRITTEN_SHARE };
enum { USED = PTE_PRESENT | PTE_WRITABLE | PTE_ACCESSED | PTE_DIRTY };

static volatile uint32_t *word_of_page(uint32_t va, uint32_t page)
{
    return (volatile uint32_t *)(va + page * PAGE_BYTES);
}

static uint32_t sum_pages(uint32_t va, uint32_t pages, uint32_t step)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < pages; i += step)
        sum += *word_of_page(va, i);
    return sum;
}

/* Fresh frames, each with its number, plus the offset, in its first word. */
static void map_numbered_pages(pte_t *into, uint32_t va, uint32_t pages, uint32_t offset, uint32_t flags)
{
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t frame = frame_alloc();

        *(volatile uint32_t *)frame = i + offset;
        map_page(into, va + i * PAGE_BYTES, frame, flags);
    }
}

uint32_t run_cr3(pte_t *directory, uint32_t count)
{
    pte_t *other = table_alloc();
    uint32_t check = 0;

    memcpy(other, directory, PAGE_BYTES); /* before SPACES_VA is mapped, so that each gets a table of its own */
    map_numbered_pages(directory, SPACES_VA, SPACE_PAGES, 0, PTE_WRITABLE);
    map_numbered_pages(other, SPACES_VA, SPACE_PAGES, 1000, PTE_WRITABLE);
    for (uint32_t i = 0; i < count; i++) {
        write_cr3(i % 2 ? directory : other);
        check = check * 31 + sum_pages(SPACES_VA, SPACE_PAGES, 1);
    }
    write_cr3(directory);
    return check;
}

/* Two frames with a number each, to map in turns. */
static void make_pair(uint32_t frames[2])
{
    for (uint32_t i = 0; i < 2; i++) {
        frames[i] = frame_alloc();
        *(volatile uint32_t *)frames[i] = 0x11111111 * (i + 1);
    }
}

uint32_t run_ptewrite(pte_t *directory, uint32_t count)
{
    volatile pte_t *entry = entry_for(directory, REMAP_VA);
    uint32_t frames[2];

    make_pair(frames);
    *entry = frames[0] | PTE_PRESENT | PTE_WRITABLE;
    for (uint32_t i = 0; i < count; i++) {
        *entry = frames[i % 2] | PTE_PRESENT | PTE_WRITABLE;
        invlpg(REMAP_VA);
    }
    return *word_of_page(REMAP_VA, 0) + count;
}

/* The page next door is used in each round, so that the table is one in use and not one being filled. */
uint32_t run_ptestore(pte_t *directory, uint32_t count)
{
    volatile pte_t *entry = entry_for(directory, REMAP_VA);
    volatile pte_t *neighbour = entry + 1;
    uint32_t frames[2];
    uint32_t check = 0;

    make_pair(frames);
    for (uint32_t i = 0; i < count; i++) {
        *entry = frames[i % 2] | USED;
        *neighbour = frames[1 - i % 2] | PTE_PRESENT | PTE_WRITABLE;
        invlpg(REMAP_VA);
        invlpg(REMAP_VA + PAGE_BYTES);
        check += *word_of_page(REMAP_VA, 0) ^ *word_of_page(REMAP_VA, 1);
    }
    return check;
}

uint32_t run_ptebulk(pte_t *directory, uint32_t count)
{
    uint32_t frames[2];
    uint32_t check = 0;

    make_pair(frames);
    for (uint32_t page = 0; page < BULK_PAGES; page++)
        map_page(directory, BULK_VA + page * PAGE_BYTES, frames[0], USED);
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t table = 0; table < BULK_PAGES / TABLE_ENTRIES; table++) {
            volatile pte_t *entries = entry_for(directory, BULK_VA + table * LARGE_PAGE_BYTES);

            for (uint32_t page = 0; page < TABLE_ENTRIES; page++)
                entries[page] = frames[(i + page) % 2] | USED;
        }
        write_cr3(directory);
        check = check * 31 + sum_pages(BULK_VA, BULK_PAGES, TABLE_ENTRIES / 2 + 1);
    }
    return check;
}

/* ---- fork: copy on write, with frames of the child's own from a pool ---- */

/* Entries are made accessed and dirty, as Linux makes them: setting the bits later costs a processor time too. fork-clean does not. */
static uint32_t preset;

static pte_t *parent_table;
static pte_t *child_table;
static pte_t *current_table;
static uint32_t pool[COPIES];
static uint32_t pool_used;

/* Eight words a turn, as kernels copy pages; volatile, so that it stays that. */
static void copy_page(uint32_t to, uint32_t from)
{
    volatile uint32_t *target = (volatile uint32_t *)to;
    const volatile uint32_t *source = (const volatile uint32_t *)from;

#pragma clang loop unroll_count(8)
    for (uint32_t word = 0; word < PAGE_BYTES / sizeof *target; word++)
        target[word] = source[word];
}

static void on_write_fault(struct frame *frame)
{
    uint32_t page = table_index(read_cr2());
    pte_t *entry = &current_table[page];

    if (!(frame->error & FAULT_WRITE) || read_cr2() - FORK_VA >= FORK_PAGES * PAGE_BYTES)
        fail("page fault at %08x", read_cr2());
    if (current_table == child_table) {
        uint32_t copy = pool[pool_used++];

        copy_page(copy, *entry & ~(uint32_t)PTE_FLAGS);
        *entry = copy | PTE_PRESENT | preset;
    } else {
        *entry |= PTE_WRITABLE; /* the child is gone: nobody shares the page any more */
    }
    invlpg(read_cr2());
}

static void fork_into_child(pte_t *parent, pte_t *child)
{
    memcpy(child, parent, PAGE_BYTES);
    child[directory_index(FORK_VA)] = (uint32_t)child_table | PTE_PRESENT | PTE_WRITABLE | PTE_USER;
    for (uint32_t page = 0; page < FORK_PAGES; page++) {
        parent_table[page] &= ~(uint32_t)PTE_WRITABLE;
        child_table[page] = parent_table[page];
    }
    write_cr3(parent); /* what was writable must not stay so in the TLB */
}

static uint32_t run_child(pte_t *child, uint32_t round)
{
    uint32_t sum;

    current_table = child_table;
    pool_used = 0;
    write_cr3(child);
    for (uint32_t page = 0; page < FORK_PAGES; page += WRITTEN_SHARE)
        *word_of_page(FORK_VA, page) += round;
    sum = sum_pages(FORK_VA, FORK_PAGES, 1);
    return sum;
}

static void destroy_child(pte_t *parent)
{
    current_table = parent_table;
    write_cr3(parent);
    for (uint32_t page = 0; page < FORK_PAGES; page++)
        child_table[page] = 0;
}

static uint32_t storm(pte_t *directory, uint32_t count)
{
    pte_t *child = table_alloc();
    uint32_t check = 0;

    map_numbered_pages(directory, FORK_VA, FORK_PAGES, 1, preset);
    parent_table = entry_for(directory, FORK_VA);
    child_table = table_alloc();
    current_table = parent_table;
    for (uint32_t i = 0; i < COPIES; i++)
        pool[i] = frame_alloc();
    set_handler(VECTOR_PAGE_FAULT, on_write_fault);
    for (uint32_t i = 0; i < count; i++) {
        fork_into_child(directory, child);
        check = check * 31 + run_child(child, i);
        destroy_child(directory);
        for (uint32_t page = 0; page < FORK_PAGES; page += WRITTEN_SHARE)
            *word_of_page(FORK_VA, page) ^= i;
    }
    return check + sum_pages(FORK_VA, FORK_PAGES, 1);
}

uint32_t run_fork(pte_t *directory, uint32_t count)
{
    preset = PTE_WRITABLE | PTE_USER | PTE_ACCESSED | PTE_DIRTY;
    return storm(directory, count);
}

uint32_t run_fork_clean(pte_t *directory, uint32_t count)
{
    preset = PTE_WRITABLE | PTE_USER;
    return storm(directory, count);
}

uint32_t run_wp(pte_t *directory, uint32_t count)
{
    uint32_t cr0 = read_cr0() | CR0_WP;

    map_numbered_pages(directory, WP_VA, 1, 0, PTE_WRITABLE);
    *entry_for(directory, WP_VA) &= ~(uint32_t)PTE_WRITABLE;
    invlpg(WP_VA);
    for (uint32_t i = 0; i < count; i++) {
        write_cr0(cr0 & ~CR0_WP);
        *word_of_page(WP_VA, 0) += i;
        write_cr0(cr0);
    }
    return *word_of_page(WP_VA, 0);
}
