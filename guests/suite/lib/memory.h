/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Frames, and page tables of the three formats behind one interface. Levels count from 1, the table of 4 KiB pages,
 * to PAGING_LEVELS, the root. Memory below IDENTITY_BYTES is mapped at its own address in every space, so tables and
 * frames are reached by their physical addresses.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include "arch.h"

#if PAGING_LEVELS == 2
typedef uint32_t entry_t;
enum { INDEX_BITS = 10 };
#define ENTRY_ADDRESS 0xFFFFF000u
#else
typedef uint64_t entry_t;
enum { INDEX_BITS = 9 };
#define ENTRY_ADDRESS 0x000FFFFFFFFFF000ull
#endif

enum {
    PAGE_BYTES = 4096,
    TABLE_ENTRIES = 1 << INDEX_BITS,
    LARGE_BYTES = PAGE_BYTES << INDEX_BITS,
    IDENTITY_BYTES = 64 << 20,
};

enum {
    PRESENT = 1 << 0,
    WRITABLE = 1 << 1,
    USER = 1 << 2,
    WRITE_THROUGH = 1 << 3,
    CACHE_DISABLE = 1 << 4,
    ACCESSED = 1 << 5,
    DIRTY = 1 << 6,
    LARGE = 1 << 7, /* above level 1; there it is PAT */
    PAT = 1 << 7,
    GLOBAL = 1 << 8,
};
#define NO_EXECUTE ((entry_t)1 << (PAGING_LEVELS > 2 ? 63 : 0)) /* never used with 32-bit paging */

enum { ERROR_PRESENT = 1, ERROR_WRITE = 2, ERROR_USER = 4, ERROR_RESERVED = 8, ERROR_FETCH = 16 };

/*
 * Every space maps the ring 3 probes here, and a stack. The cases' own addresses begin at TEST_VA, which shares no
 * entry of any level with the rest.
 */
#define USER_CODE_VA 0x3C000000u
#define USER_STACK_VA 0x3C001000u
#if PAGING_LEVELS == 4
#define TEST_VA 0x100040000000ull
#else
#define TEST_VA 0x40000000u
#endif

/* The space of the current case, loaded in CR3. */
extern entry_t *space;

void memory_init(uint32_t multiboot_info);

/* Takes back all frames, resets the control registers, and loads a new space. */
void memory_reset(void);

/* The address of a zeroed frame; ends the case when there is none. */
word frame_new(void);
/* COUNT frames in a row, aligned to their size. */
word frames_new_aligned(unsigned count);
unsigned frames_left(void);

/* A root with the identity map and the ring 3 pages, nothing else. */
entry_t *space_new(void);
void load_space(entry_t *root);

/* The entry for VA at LEVEL; tables on the way are made with every right. */
entry_t *entry_at(entry_t *root, word va, unsigned level);
unsigned index_of(word va, unsigned level);
entry_t *table_of(entry_t entry);

static inline entry_t *leaf(word va)
{
    return entry_at(space, va, 1);
}

/* Flags beyond PRESENT. */
void map(entry_t *root, word va, word pa, entry_t flags);
/* Maps a fresh frame in the current space and returns its address. */
word map_new(word va, entry_t flags);

/* Is NX there, and on? */
bool has_nx(void);

static inline volatile uint32_t *at(word address)
{
    return (volatile uint32_t *)address;
}

#endif
