/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "paging.h"

#include "string.h"

extern char image_start[];
extern char read_only_end[];

unsigned directory_index(uint32_t va)
{
    return va / LARGE_PAGE_BYTES;
}

unsigned table_index(uint32_t va)
{
    return va / PAGE_BYTES % TABLE_ENTRIES;
}

pte_t *table_alloc(void)
{
    return (pte_t *)frame_alloc();
}

pte_t *entry_for(pte_t *directory, uint32_t va)
{
    pte_t *slot = &directory[directory_index(va)];

    if (!(*slot & PTE_PRESENT))
        *slot = (uint32_t)table_alloc() | PTE_PRESENT | PTE_WRITABLE | PTE_USER;
    return (pte_t *)(*slot & ~(uint32_t)PTE_FLAGS) + table_index(va);
}

void map_page(pte_t *directory, uint32_t va, uint32_t pa, uint32_t flags)
{
    *entry_for(directory, va) = pa | flags | PTE_PRESENT;
}

static uint32_t identity_flags(uint32_t pa)
{
    return pa >= (uint32_t)image_start && pa < (uint32_t)read_only_end ? 0 : PTE_WRITABLE;
}

void map_identity(pte_t *directory)
{
    for (uint32_t pa = 0; pa < frames_end(); pa += PAGE_BYTES)
        map_page(directory, pa, pa, identity_flags(pa));
}

void paging_on(const pte_t *directory)
{
    write_cr3(directory);
    write_cr0(read_cr0() | CR0_WP | CR0_PG);
}

static char *append(char *end, const char *start, const char *flag)
{
    if (end != start)
        *end++ = '|';
    memcpy(end, flag, strlen(flag) + 1);
    return end + strlen(flag);
}

const char *fault_name(uint32_t error, char name[FAULT_NAME_BYTES])
{
    static const char *const flags[] = {"P", "W", "U", "RSVD", "F"};
    char *end = name;

    for (unsigned bit = 0; bit < sizeof flags / sizeof *flags; bit++)
        if (error & 1u << bit)
            end = append(end, name, flags[bit]);
    return end == name ? "none" : name;
}
