/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page cache: pages of files in memory. */
#ifndef CACHE_H
#define CACHE_H

#include "frames.h"
#include "inode.h"

/* The page of a file, read if it is not there; pinned until cache_put. Null without memory or if the disk fails. May sleep. */
struct frame *cache_get(struct inode *inode, uint32_t index);

/* The same for a page about to be overwritten whole: it is not read. */
struct frame *cache_get_new(struct inode *inode, uint32_t index);
void cache_put(struct frame *frame);

/* Room on the disk for a pinned page about to be stored to: 0 or -ENOSPC. May sleep, and then the page may have left the cache. */
int cache_reserve(struct frame *frame);
void cache_mark_dirty(struct frame *frame);

/* Writes a dirty page to its file; 0 or an error, after which it is dirty still. Sleeps. */
int cache_write_back(struct frame *frame);

/* Writes all dirty pages of a file (null: of all). */
int cache_flush(struct inode *inode);

/* The reclaimer: a clean page that nothing maps leaves the cache and is free. */
void cache_remove(struct frame *frame);
unsigned cache_dirty_pages(void);

#endif
