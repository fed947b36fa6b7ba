/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Frames: the pages of physical memory, who has each, and the free list. */
#ifndef FRAMES_H
#define FRAMES_H

#include "arch.h"

struct inode;
struct multiboot_info;

enum frame_kind {
    FRAME_RESERVED,  /* no RAM, firmware, the kernel's image */
    FRAME_FREE,
    FRAME_KERNEL,    /* taken with frame_alloc by whoever has no other name */
    FRAME_ANONYMOUS, /* of processes: mapped at `page` in one address space or, after a fork, in several */
    FRAME_FILE,      /* in the page cache */
    FRAME_BALLOON,
};

struct frame {
    uint8_t kind;          /* enum frame_kind */
    uint8_t dirty;         /* FILE: newer than the disk's, beyond what D bits of mappings say */
    uint8_t busy;          /* on its way from or to the disk: wait on the frame's address */
    uint8_t reserved;      /* FILE: a block of the disk is set aside for it */
    uint8_t pins;          /* users that hold the frame for a moment: it is not reclaimed */
    uint32_t mappings;     /* page table entries that lead here */
    word page;             /* ANONYMOUS: linear address in each of its spaces; FILE: page number in the file */
    struct inode *inode;   /* FILE */
    struct frame *next;    /* on the free list, or in a bucket of the cache */
};

enum { FRAME_MAY_WAIT = 1, FRAME_ZERO = 2, FRAME_RESERVE = 4 };

/* Marks of free frames, shares of what the kernel has to manage. */
struct watermarks {
    unsigned min;  /* left to the pager (FRAME_RESERVE) */
    unsigned low;  /* the pager is woken */
    unsigned high; /* the pager rests */
};

extern struct watermarks watermarks;
extern struct frame *frames; /* one for each page of RAM from address 0 */
extern unsigned frame_count; /* of the array */

void frames_init(const struct multiboot_info *info, paddr image_end);

/* Sets the marks anew for what is left without the frames of the balloon. */
void frames_set_watermarks(void);

/* A frame of kind KERNEL. 0 when there is none: without MAY_WAIT soon, with it only when nothing can be reclaimed. */
paddr frame_alloc(unsigned flags);
void frame_free(paddr page);

static inline struct frame *frame_of(paddr page)
{
    return &frames[page >> PAGE_SHIFT];
}

static inline paddr frame_address(const struct frame *frame)
{
    return (paddr)(frame - frames) << PAGE_SHIFT;
}

bool frames_are_low(void);
unsigned frames_total(void);
unsigned frames_free(void);
unsigned frames_of_kind(enum frame_kind kind);
void frame_set_kind(struct frame *frame, enum frame_kind kind);

#endif
