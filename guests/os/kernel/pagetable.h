/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page tables in the build's format: 2 levels of 32-bit entries, 3 or 4 of 64-bit entries. */
#ifndef PAGETABLE_H
#define PAGETABLE_H

#include "arch.h"
#include "frames.h"

enum {
    PTE_PRESENT = 1 << 0,
    PTE_WRITABLE = 1 << 1,
    PTE_USER = 1 << 2,
    PTE_ACCESSED = 1 << 5,
    PTE_DIRTY = 1 << 6,
    PTE_SWAPPED = 1 << 9, /* with P clear: the rest is the page's slot on the swap partition */
};
#define PTE_FRAME ((pte)0xFFFFF000) /* RAM lies below DIRECT_BYTES */

extern pte kernel_root[];

static inline paddr pte_frame(pte entry)
{
    return (paddr)(entry & PTE_FRAME);
}

/* A root whose kernel half is everybody's and whose user half is empty; 0 without memory. */
paddr pagetable_new(void);

/* Gives back all tables of the user half, and the root. Pages must have been unmapped. */
void pagetable_free(paddr root);

/* The entry for a page of user space; null where no table is, or none could be made with `make`. It stays where it is until pagetable_free. */
pte *pagetable_entry(paddr root, word va, bool make);

/* The first address after `va` of which another table has the entry. */
word pagetable_next(word va);

#endif
