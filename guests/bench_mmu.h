/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loops that measure what page tables cost. Each returns a checksum that must be the same on every machine. */
#ifndef BENCH_MMU_H
#define BENCH_MMU_H

#include <stdint.h>

#include "lib/paging.h"

/* Two address spaces of 64 pages each, all touched after each switch. */
uint32_t run_cr3(pte_t *directory, uint32_t count);

/* One PTE stored, invalidated and used. */
uint32_t run_ptewrite(pte_t *directory, uint32_t count);

/* One PTE stored after its page was used, so that the machine has it in mind; nothing is invalidated in between. */
uint32_t run_ptestore(pte_t *directory, uint32_t count);

/* 4096 PTEs stored, then CR3 loaded and a page of each table used. */
uint32_t run_ptebulk(pte_t *directory, uint32_t count);

/* An address space of 256 pages forked, one page in sixteen written by the child, then destroyed. */
uint32_t run_fork(pte_t *directory, uint32_t count);

/* The same with entries whose A and D bits are left to the processor. */
uint32_t run_fork_clean(pte_t *directory, uint32_t count);

/* CR0.WP cleared, a read-only page stored to, CR0.WP set. */
uint32_t run_wp(pte_t *directory, uint32_t count);

/* 512 pages stored to, given to the machine through the balloon, and taken back. */
uint32_t run_balloon(uint32_t count);

#endif
