/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file system on the disk (FORMAT.md). Every number is little-endian; blocks are counted from the partition's beginning.
 *
 *     0 superblock | log | bitmap of blocks | inodes | data
 */
#ifndef FORMAT_H
#define FORMAT_H

#include <stdint.h>

#define FS_MAGIC 0x53464D45 /* "EMFS" */
#define FS_VERSION 1
#define FS_INODE_BYTES 128
#define FS_DIRECT 20
#define FS_POINTERS 1024     /* in a block */
#define FS_ENTRY_BYTES 64    /* of a directory */
#define FS_LOG_MAGIC 0x474F4C45
#define FS_LOG_CAPACITY 120

struct superblock {
    uint32_t magic, version;
    uint32_t blocks;         /* of the file system */
    uint32_t inodes;         /* number 0 is none, 1 the root directory */
    uint32_t log_first, log_blocks;
    uint32_t bitmap_first, bitmap_blocks; /* a bit a block, 1: in use */
    uint32_t inode_first, inode_blocks;
    uint32_t data_first;
};

struct disk_inode {
    uint32_t kind;           /* enum file_kind; KIND_NONE: free */
    uint32_t links;          /* 0 with a kind: to be freed at the next mount */
    uint64_t size;           /* bytes */
    uint32_t blocks;         /* in use, those of pointers included */
    uint32_t direct[FS_DIRECT];
    uint32_t indirect;       /* a block of pointers */
    uint32_t twice_indirect; /* a block of pointers to such */
    uint32_t reserved[5];
};

#endif
