/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between inode.c and directory.c; all but fs_begin within fs_begin and fs_end. */
#ifndef INODE_INTERNAL_H
#define INODE_INTERNAL_H

#include "blocks.h"
#include "inode.h"

/* Around each operation: one at a time, in a transaction with room for it. fs_end returns `result`. */
void fs_begin(void);
int fs_end(int result);

int inode_get_locked(uint32_t number, struct inode **found);

/* Outside of operations, when one answered -EMFILE since too many files have pages in the cache: one of them goes; false if none can. */
bool fs_make_inodes_free(void);

/* A free inode, with one reference and no links. */
int inode_new(enum file_kind kind, struct inode **made);

/* Kind, links and size to the inode's block. */
int inode_write(struct inode *inode);

/* A block of a directory, until block_put; null for a hole without `make`, a full disk, or a failure. */
struct buffer *inode_block(struct inode *inode, uint32_t index, bool make);

#endif
