/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loops that measure the disk: one request after the other, by DMA and with interrupts, over the whole disk and again. */
#ifndef BENCH_DISK_H
#define BENCH_DISK_H

#include <stdint.h>

/* COUNT requests of request= bytes. Reads return a checksum of what they found, which is zeros on a fresh disk. */
uint32_t run_disk_read(uint32_t count);
uint32_t run_disk_write(uint32_t count);

#endif
