/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The boot archive: programs linked into the kernel's image, read-only files of /bin.
 *
 * build.py makes it: a count, then for each program its name (NAME_BYTES) and where its contents are (offset from the archive's
 * beginning, bytes; 32 bits each), then the contents, each on a page of its own.
 */
#include "files.h"

#include "../../lib/string.h"
#include "kernel.h"

enum { PROGRAMS = 64 };

struct program {
    char name[NAME_BYTES];
    uint32_t offset, bytes;
};

extern const uint8_t archive_start[];

struct inode bootfs_directory = {.kind = KIND_DIRECTORY, .links = 1, .references = 1};
static struct inode inodes[PROGRAMS];
static const struct program *programs;
static uint32_t program_count;

void bootfs_init(void)
{
    program_count = *(const uint32_t *)archive_start;
    programs = (const struct program *)(archive_start + sizeof program_count);
    if (program_count > PROGRAMS)
        panic("%u programs in the boot archive, room for %d", program_count, PROGRAMS);
    for (uint32_t i = 0; i < program_count; i++)
        inodes[i] = (struct inode){
            .kind = KIND_FILE,
            .links = 1,
            .size = programs[i].bytes,
            .blocks = (programs[i].bytes + PAGE_BYTES - 1) >> PAGE_SHIFT,
            .archive = archive_start + programs[i].offset,
        };
}

struct inode *bootfs_find(const char *name)
{
    for (uint32_t i = 0; i < program_count; i++)
        if (strcmp(programs[i].name, name) == 0) {
            inodes[i].references++;
            return &inodes[i];
        }
    return NULL;
}

int bootfs_list(uint32_t *offset, struct directory_entry *entry)
{
    if (*offset >= program_count)
        return 0;
    entry->inode = 0;
    memcpy(entry->name, programs[*offset].name, NAME_BYTES);
    ++*offset;
    return 1;
}
