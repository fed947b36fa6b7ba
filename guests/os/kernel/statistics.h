/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Counts since the start, for meminfo. */
#ifndef STATISTICS_H
#define STATISTICS_H

#include "arch.h"

struct statistics {
    uint32_t faults, cow_copies; /* page faults served, pages copied for a writer */
    uint32_t file_reads, file_writes, swap_reads, swap_writes; /* pages */
    uint32_t killed;             /* processes, for want of memory */
};

extern struct statistics statistics;

#endif
