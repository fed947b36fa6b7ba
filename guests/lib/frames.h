/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Page frames of RAM, handed out once and never taken back: guests are short. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>

enum { PAGE_BYTES = 4096 };

void frames_init(uint32_t start, uint32_t end);

/* The address of a zeroed frame. A guest that runs out of memory ends, saying so. */
uint32_t frame_alloc(void);

uint32_t frames_free(void);

/* The end of the last frame that will ever be handed out. */
uint32_t frames_end(void);

#endif
