/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open files, and paths: /bin is the boot archive, everything else the disk. */
#ifndef FILES_H
#define FILES_H

#include "arch.h"
#include "inode.h"

struct file {
    unsigned references;   /* of descriptors */
    uint32_t flags;        /* O_* */
    uint64_t position;     /* bytes; of a directory, the offset of inode_list */
    struct inode *inode;   /* null: the console */
};

/* The inode that a path names, with a reference; or an error. */
int path_lookup(const char *path, struct inode **found);

/* The directory of a path's last name, and that name, in `path`. */
int path_parent(const char *path, struct inode **directory, const char **name);

int file_open(const char *path, uint32_t flags, struct file **opened);
void file_close(struct file *file);

/* To and from user memory: bytes done, or an error. */
intptr_t file_read(struct file *file, word buffer, word bytes);
intptr_t file_write(struct file *file, word buffer, word bytes);

void files_open_console(struct file *files[]);
void files_share(struct file *to[], struct file *const from[]);
void files_close_all(struct file *files[]);

/* Below the page cache: a page from the archive or the disk. */
int file_read_page(struct inode *inode, uint32_t index, paddr page);
void file_inode_put(struct inode *inode);

/* The boot archive (bootfs.c). */
void bootfs_init(void);
struct inode *bootfs_find(const char *name);
int bootfs_list(uint32_t *offset, struct directory_entry *entry);
extern struct inode bootfs_directory;

#endif
