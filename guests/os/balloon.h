/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A driver for VMware's balloon port, for any kernel that provides the functions of struct balloon_kernel: it takes pages from the kernel by
 * the kernel's own rules and gives them to the machine, as many as it is told to.
 */
#ifndef BALLOON_DRIVER_H
#define BALLOON_DRIVER_H

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t page_number;

struct balloon_kernel {
    page_number (*take_page)(void);          /* a page that nobody needs, 0 if there is none: never from reserves, never by waiting */
    void (*give_page)(page_number page);     /* back to the kernel */
    void *(*contents)(page_number page);     /* where the kernel sees it */
    bool (*is_struggling)(void);             /* the kernel is short of memory */
    uint32_t (*total_pages)(void);
    void (*say)(const char *what, uint32_t number); /* a line for the log */
};

struct balloon {
    const struct balloon_kernel *kernel;
    bool is_there;          /* the port answers */
    bool is_batched;        /* by batches of pages */
    page_number book;       /* first page of the book: page numbers of the balloon, in pages chained by their first word */
    page_number batch;      /* the page of entries for a call, 0: not taken yet */
    page_number refused[8]; /* pages that the machine did not take, kept so that they are not offered again at once */
    uint32_t refused_count;
    uint32_t size, target;  /* pages */
    uint32_t rate;          /* pages that it takes in a second, adapted to how the kernel bears it */
};

/* Looks for the port; false: there is none. */
bool balloon_init(struct balloon *balloon, const struct balloon_kernel *kernel);

/* To be called once a second: asks for the target, and moves towards it. */
void balloon_poll(struct balloon *balloon);

#endif
