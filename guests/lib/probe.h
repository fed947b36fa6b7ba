/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory accesses that survive a page fault and tell of it. */
#ifndef PROBE_H
#define PROBE_H

#include <stdbool.h>
#include <stdint.h>

struct probe {
    bool faulted;
    uint32_t error;   /* the fault's error code */
    uint32_t address; /* CR2 at the fault */
    uint32_t value;   /* what a load that did not fault saw */
};

/* Takes over the page fault vector. */
void probe_init(void);

struct probe probe_load(uint32_t va);
struct probe probe_store(uint32_t va, uint32_t value);

/* Calls VA, where a RET must be if anything is. */
struct probe probe_call(uint32_t va);

/*
 * Runs user code (user.h) that makes one access to VA, its argument. When that faults, the code goes on at RESUME,
 * in ring 3.
 */
struct probe probe_from_ring3(uint32_t eip, uint32_t resume, uint32_t esp, uint32_t va);

/*
 * A guest that does more with page faults: called before a fault counts for a probe; true means that the cause
 * is gone and the instruction is to be tried again.
 */
extern bool (*probe_repair)(uint32_t va, uint32_t error);

#endif
