/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 32-bit paging (Intel SDM volume 3, 4.3): a directory of 1024 entries, each of which points to a table of 1024
 * entries or, with PTE_LARGE and CR4.PSE, maps 4 MiB itself.
 *
 *   31                    12 11  9  8  7  6  5  4   3   2  1  0
 *   frame's address           free  G  PS D  A  PCD PWT U  W  P
 */
#ifndef PAGING_H
#define PAGING_H

#include <stdint.h>

#include "frames.h"

enum {
    PTE_PRESENT = 1 << 0,
    PTE_WRITABLE = 1 << 1,
    PTE_USER = 1 << 2,
    PTE_ACCESSED = 1 << 5, /* set by the CPU */
    PTE_DIRTY = 1 << 6,    /* set by the CPU */
    PTE_LARGE = 1 << 7,    /* in a directory entry: a 4 MiB page */
    PTE_GLOBAL = 1 << 8,   /* with CR4.PGE: outlives a CR3 load */
    PTE_FLAGS = 0xFFF,
};

/* The error code of a page fault. */
enum {
    FAULT_PRESENT = 1 << 0, /* protection; clear: nothing mapped */
    FAULT_WRITE = 1 << 1,
    FAULT_USER = 1 << 2,
    FAULT_RESERVED = 1 << 3,
    FAULT_FETCH = 1 << 4,
};

enum { CR4_PSE = 1 << 4, CR4_PGE = 1 << 7 };

#define CR0_WP (1u << 16) /* supervisor stores obey read-only pages */
#define CR0_PG (1u << 31)

enum {
    TABLE_ENTRIES = 1024,
    LARGE_PAGE_BYTES = PAGE_BYTES * TABLE_ENTRIES,
    FAULT_NAME_BYTES = 16, /* "P|W|U|RSVD|F" and its terminator */
};

typedef uint32_t pte_t;

/* For tables that exist from the start: kernel.ld gives them pages that hold nothing else. */
#define PAGE_TABLE __attribute__((section(".bss.pagetables"), aligned(4096)))

unsigned directory_index(uint32_t va);
unsigned table_index(uint32_t va);

/* An empty directory or table. */
pte_t *table_alloc(void);

/*
 * The entry for a 4 KiB page, in a table that is made if need be. Directory entries are as permissive as can be,
 * so that the page's own entry decides.
 */
pte_t *entry_for(pte_t *directory, uint32_t va);

void map_page(pte_t *directory, uint32_t va, uint32_t pa, uint32_t flags);

/*
 * Maps all memory up to the last frame at its own address, for the kernel only, in 4 KiB pages; code and
 * constants are read-only.
 */
void map_identity(pte_t *directory);

/* Loads the directory and sets CR0.PG and CR0.WP. */
void paging_on(const pte_t *directory);

/* Writes the flags of an error code as "P|W|U|RSVD|F", or "none". */
const char *fault_name(uint32_t error, char name[FAULT_NAME_BYTES]);

static inline uint32_t read_cr0(void)
{
    uint32_t value;

    __asm__ volatile("movl %%cr0, %0" : "=r"(value));
    return value;
}

static inline void write_cr0(uint32_t value)
{
    __asm__ volatile("movl %0, %%cr0" : : "r"(value) : "memory");
}

static inline uint32_t read_cr2(void)
{
    uint32_t value;

    __asm__ volatile("movl %%cr2, %0" : "=r"(value));
    return value;
}

static inline void write_cr3(const pte_t *directory)
{
    __asm__ volatile("movl %0, %%cr3" : : "r"(directory) : "memory");
}

static inline uint32_t read_cr3(void)
{
    uint32_t value;

    __asm__ volatile("movl %%cr3, %0" : "=r"(value));
    return value;
}

static inline uint32_t read_cr4(void)
{
    uint32_t value;

    __asm__ volatile("movl %%cr4, %0" : "=r"(value));
    return value;
}

static inline void write_cr4(uint32_t value)
{
    __asm__ volatile("movl %0, %%cr4" : : "r"(value) : "memory");
}

static inline void invlpg(uint32_t va)
{
    __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

#endif
