/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files on the disk: inodes, their pages and the directories that name them. Above it is the page cache (cache.h). */
#ifndef INODE_H
#define INODE_H

#include "arch.h"
#include "disk.h"
#include "../include/errors.h"
#include "../include/syscall.h"

enum { ROOT_INODE = 1 };

struct inode {
    uint32_t number;        /* on the disk; 0: a program of the boot archive */
    uint32_t kind;          /* enum file_kind */
    uint32_t links;         /* directory entries */
    uint32_t references;    /* users of this structure */
    uint64_t size;          /* bytes */
    uint32_t blocks;        /* that hold data, for stat */
    const void *archive;    /* contents of a program of the boot archive, else null */
    uint32_t pages;         /* in the page cache (cache.c) */
    uint32_t used_at;       /* count of uses, for the least recent */
};

/* Mounts the file system in a partition, its log replayed; 0 or an error. */
int fs_mount(struct extent extent);
bool fs_is_mounted(void);

/* All of these return 0 or a negative error, and inodes with a reference that inode_put gives back. */
int inode_get(uint32_t number, struct inode **found);
void inode_put(struct inode *inode);
int inode_lookup(struct inode *directory, const char *name, struct inode **found);
int inode_create(struct inode *directory, const char *name, enum file_kind kind, struct inode **made);
int inode_unlink(struct inode *directory, const char *name);
int inode_rename(struct inode *from, const char *old_name, struct inode *to, const char *new_name);

/* The entry at *offset or behind it, *offset moved past it; 1, or 0 at the end. */
int inode_list(struct inode *directory, uint32_t *offset, struct directory_entry *entry);

/* A page of the file: zeros for a hole and beyond the end. */
int inode_read_page(struct inode *inode, uint32_t index, paddr page);

/* Sets a block aside for a page that will be written later, so that the disk cannot be full then: 1, 0 if the page has its block, -ENOSPC. */
int inode_reserve_page(struct inode *inode, uint32_t index);
void fs_unreserve(unsigned pages);

/* Up to TRANSFER_BLOCKS pages in a row. Allocates blocks if need be; data are on the disk before the metadata that names them. */
int inode_write_pages(struct inode *inode, uint32_t first, const paddr pages[], unsigned count);

/* Blocks beyond the end are given back; the cache must have dropped its pages there. */
int inode_set_size(struct inode *inode, uint64_t size);

/* Metadata and log on the disk, and the disk's own cache too. */
int fs_sync(void);

/* The kernel's cache: forget the pages of an inode from an index on (cache.c). */
void cache_drop(struct inode *inode, uint32_t from_index);

#endif
