/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page tables.
 *
 *     build     levels, by the bits of an address    root
 *     i386      31-22, 21-12                         1024 entries; the kernel's, from KERNEL_BASE on, are copied
 *     pae       31-30, 29-21, 20-12                  four pointers; the last one leads to the kernel's directory
 *     x86_64    47-39, 38-30, 29-21, 20-12           512 entries; the last one leads to the kernel's pointers
 *
 * 1. Tables are frames of kind KERNEL. Entries of upper levels carry all rights and A; those of pages decide.
 * 2. With PAE the three directories of user space exist from the beginning: the processor reads the pointers to them at a load of CR3 only.
 */
#include "pagetable.h"

#include "../../lib/string.h"

enum { TABLE_BITS = sizeof(pte) == 4 ? 10 : 9, TABLE_ENTRIES = 1 << TABLE_BITS };
enum { TABLE = PTE_PRESENT | PTE_WRITABLE | PTE_USER | PTE_ACCESSED };
#if PAGING_LEVELS == 2
enum { ROOT_ENTRIES = 1024, KERNEL_ENTRY = KERNEL_BASE >> 22 };
#elif PAGING_LEVELS == 3
enum { ROOT_ENTRIES = 4, KERNEL_ENTRY = 3 };
#else
enum { ROOT_ENTRIES = 512, KERNEL_ENTRY = 511 };
#endif

static unsigned index_at(word va, unsigned level)
{
    return va >> (PAGE_SHIFT + (level - 1) * TABLE_BITS) & (level == PAGING_LEVELS ? ROOT_ENTRIES - 1 : TABLE_ENTRIES - 1);
}

static bool make_table(pte *entry, pte flags)
{
    paddr table = frame_alloc(FRAME_MAY_WAIT | FRAME_ZERO);

    if (!table)
        return false;
    if (*entry & PTE_PRESENT) /* made by another while this one slept */
        frame_free(table);
    else
        *entry = table | flags;
    return true;
}

paddr pagetable_new(void)
{
    paddr root = frame_alloc(FRAME_MAY_WAIT | FRAME_ZERO);
    pte *entries = direct(root);

    if (!root)
        return 0;
    memcpy(entries + KERNEL_ENTRY, kernel_root + KERNEL_ENTRY, (ROOT_ENTRIES - KERNEL_ENTRY) * sizeof(pte));
    for (unsigned i = 0; PAGING_LEVELS == 3 && i < KERNEL_ENTRY; i++)
        if (!make_table(&entries[i], PTE_PRESENT)) {
            pagetable_free(root);
            return 0;
        }
    return root;
}

static void free_tables(pte *entries, unsigned count, unsigned level)
{
    for (unsigned i = 0; i < count; i++) {
        if (!(entries[i] & PTE_PRESENT))
            continue;
        if (level > 2)
            free_tables(direct(pte_frame(entries[i])), TABLE_ENTRIES, level - 1);
        frame_free(pte_frame(entries[i]));
    }
}

void pagetable_free(paddr root)
{
    free_tables(direct(root), KERNEL_ENTRY, PAGING_LEVELS);
    frame_free(root);
}

pte *pagetable_entry(paddr root, word va, bool make)
{
    pte *entries = direct(root);

    for (unsigned level = PAGING_LEVELS; level > 1; level--) {
        pte *entry = &entries[index_at(va, level)];

        if (!(*entry & PTE_PRESENT) && (!make || !make_table(entry, TABLE)))
            return NULL;
        entries = direct(pte_frame(*entry));
    }
    return &entries[index_at(va, 1)];
}

word pagetable_next(word va)
{
    word span = (word)PAGE_BYTES << TABLE_BITS;

    return (va & -span) + span;
}
