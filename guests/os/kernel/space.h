/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Address spaces: what a program sees at which address, and the faults that bring it in. */
#ifndef SPACE_H
#define SPACE_H

#include "arch.h"
#include "pagetable.h"

enum { REGIONS = 24 };

struct region {
    word start, end;      /* page-aligned; empty: start == end */
    uint8_t protection;   /* PROT_* */
    uint8_t is_shared;    /* stores go to the file */
    struct inode *inode;  /* what it shows; null: zeros */
    uint32_t first_page;  /* of the file, at `start` */
    word file_bytes;      /* of the region that come from the file; zeros behind */
};

struct space {
    paddr root;
    struct region regions[REGIONS];
    word heap;            /* the break that sbrk moves */
    word heap_start;
    uint32_t anonymous;   /* pages of its own, in memory or swapped: what an out-of-memory kill would free */
    struct space *next;   /* all spaces */
};

extern struct space *spaces;

/* 0 without memory. */
struct space *space_new(void);
struct space *space_fork(struct space *parent);
void space_free(struct space *space);

/* Adds a region; -EINVAL, or -ENOMEM where there is no room. Takes a reference of its own to the inode. */
int space_map(struct space *space, struct region region);
int space_unmap(struct space *space, word start, word end);

/* A free range for a mapping; 0 if there is none. */
word space_find_room(const struct space *space, word bytes);
int space_sbrk(struct space *space, intptr_t change, word *old_break);

/* Serves a page fault; false if the program may not do this, or memory is out. May sleep. */
bool space_fault(struct space *space, word va, bool write);

/* Calls `visit` for each present entry that maps a frame, in any space. */
void for_each_mapping(struct frame *frame, void (*visit)(struct space *space, word va, pte *entry, void *argument), void *argument);

/* The processor is to use this space (null: the kernel's alone). */
void space_load(struct space *space);
void space_flush_page(const struct space *space, word va);

#endif
