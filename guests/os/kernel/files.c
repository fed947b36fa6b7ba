/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open files and paths. Reads and writes copy between user memory and pinned pages of the cache, so no lock is held over a fault. */
#include "files.h"

#include "../../lib/string.h"
#include "cache.h"
#include "console.h"
#include "kernel.h"
#include "line.h"
#include "process.h"
#include "schedule.h"

enum { OPEN_FILES = 128, BOUNCE_BYTES = 64 };
static const uint64_t MAX_FILE_BYTES = 1ull << 30;

static struct file pool[OPEN_FILES];

/* ---- paths ---- */

/* The next name of a path in `name`; what follows it, null at the end; `error` if it is too long. */
static const char *next_name(const char *path, char name[NAME_BYTES], int *error)
{
    unsigned length = 0;

    while (*path == '/')
        path++;
    if (!*path)
        return NULL;
    while (*path && *path != '/') {
        if (length + 1 >= NAME_BYTES) {
            *error = -ENAMETOOLONG;
            return NULL;
        }
        name[length++] = *path++;
    }
    name[length] = 0;
    return path;
}

static int root_of(struct inode **found)
{
    return fs_is_mounted() ? inode_get(ROOT_INODE, found) : -ENOENT;
}

static int step_into(struct inode **at, const char *name)
{
    struct inode *found;
    int error = (*at)->kind == KIND_DIRECTORY ? inode_lookup(*at, name, &found) : -ENOTDIR;

    file_inode_put(*at);
    if (!error)
        *at = found;
    return error;
}

/* /bin itself and what is in it. */
static int lookup_program(const char *path, struct inode **found)
{
    char name[NAME_BYTES];
    int error = 0;
    const char *rest = next_name(path, name, &error);

    if (!rest) {
        *found = &bootfs_directory;
        return error;
    }
    *found = bootfs_find(name);
    return *found ? 0 : -ENOENT;
}

int path_lookup(const char *path, struct inode **found)
{
    char name[NAME_BYTES];
    int error = 0;
    const char *rest = next_name(path, name, &error);

    if (error)
        return error;
    if (rest && strcmp(name, "bin") == 0)
        return lookup_program(rest, found);
    error = root_of(found);
    while (!error && rest) {
        error = step_into(found, name);
        if (error)
            return error;
        rest = next_name(rest, name, &error);
    }
    return error;
}

int path_parent(const char *path, struct inode **directory, const char **name)
{
    char parent[PATH_BYTES];
    size_t length = strlen(path);

    while (length && path[length - 1] == '/')
        length--;
    while (length && path[length - 1] != '/')
        length--;
    *name = path + length;
    if (!**name)
        return -EINVAL;
    if (strlen(*name) >= NAME_BYTES || length >= PATH_BYTES)
        return -ENAMETOOLONG;
    memcpy(parent, path, length);
    parent[length] = 0;
    return path_lookup(parent, directory);
}

void file_inode_put(struct inode *inode)
{
    if (inode->archive)
        inode->references--;
    else if (inode != &bootfs_directory)
        inode_put(inode);
}

int file_read_page(struct inode *inode, uint32_t index, paddr page)
{
    uint64_t offset = (uint64_t)index << PAGE_SHIFT;
    uint64_t bytes = offset < inode->size ? inode->size - offset : 0;

    if (!inode->archive)
        return inode_read_page(inode, index, page);
    if (bytes > PAGE_BYTES)
        bytes = PAGE_BYTES;
    memcpy(direct(page), (const uint8_t *)inode->archive + offset, bytes);
    memset((uint8_t *)direct(page) + bytes, 0, PAGE_BYTES - bytes);
    return 0;
}

/* ---- open files ---- */

static struct file *new_file(struct inode *inode, uint32_t flags)
{
    for (struct file *file = pool; file < pool + OPEN_FILES; file++)
        if (!file->references) {
            *file = (struct file){.references = 1, .flags = flags, .inode = inode};
            return file;
        }
    return NULL;
}

static int find_or_create(const char *path, uint32_t flags, struct inode **inode)
{
    int error = path_lookup(path, inode);
    struct inode *directory;
    const char *name;

    if (error != -ENOENT || !(flags & O_CREATE))
        return error;
    error = path_parent(path, &directory, &name);
    if (error)
        return error;
    error = directory->number ? inode_create(directory, name, KIND_FILE, inode) : -EROFS;
    file_inode_put(directory);
    return error;
}

static int check_access(const struct inode *inode, uint32_t flags)
{
    bool writes = (flags & O_ACCESS) != O_RDONLY || flags & O_TRUNCATE;

    if (inode->kind == KIND_DIRECTORY)
        return writes ? -EISDIR : 0;
    return writes && inode->archive ? -EROFS : 0;
}

int file_open(const char *path, uint32_t flags, struct file **opened)
{
    struct inode *inode;
    int error = find_or_create(path, flags, &inode);

    if (error)
        return error;
    error = check_access(inode, flags);
    if (!error && flags & O_TRUNCATE && inode->size) {
        cache_drop(inode, 0);
        error = inode_set_size(inode, 0);
    }
    *opened = error ? NULL : new_file(inode, flags);
    if (!error && !*opened)
        error = -EMFILE;
    if (error)
        file_inode_put(inode);
    return error;
}

void file_close(struct file *file)
{
    if (--file->references == 0 && file->inode)
        file_inode_put(file->inode);
}

void files_open_console(struct file *files[])
{
    files[0] = new_file(NULL, O_RDWR);
    files[1] = files[2] = files[0];
    files[0]->references = 3;
}

void files_share(struct file *to[], struct file *const from[])
{
    for (unsigned i = 0; i < FILES; i++) {
        to[i] = from[i];
        if (to[i])
            to[i]->references++;
    }
}

void files_close_all(struct file *files[])
{
    for (unsigned i = 0; i < FILES; i++)
        if (files[i]) {
            struct file *file = files[i];

            files[i] = NULL;
            file_close(file);
        }
}

/* ---- reading and writing ---- */

static intptr_t read_console(word buffer, word bytes)
{
    char line[LINE_BYTES]; /* whole: a part would be taken for one */
    intptr_t got = console_read(line, bytes < sizeof line ? bytes : sizeof line);

    return got <= 0 || user_copy((void *)buffer, line, got) ? got : -EFAULT;
}

static intptr_t write_console(word buffer, word bytes)
{
    char part[BOUNCE_BYTES];

    for (word done = 0; done < bytes; done += sizeof part) {
        word size = bytes - done < sizeof part ? bytes - done : sizeof part;

        if (done && done % PAGE_BYTES == 0 && !let_others_run())
            return done;
        if (!user_copy(part, (const void *)(buffer + done), size))
            return done ? (intptr_t)done : -EFAULT;
        console_write(part, size);
    }
    return bytes;
}

static word part_at(uint64_t position, word bytes)
{
    word room = PAGE_BYTES - (position & (PAGE_BYTES - 1));

    return bytes < room ? bytes : room;
}

intptr_t file_read(struct file *file, word buffer, word bytes)
{
    word done = 0;

    if (!file->inode)
        return read_console(buffer, bytes);
    if (file->inode->kind != KIND_FILE)
        return -EISDIR;
    while (done < bytes && file->position < file->inode->size) {
        word part = part_at(file->position, bytes - done);
        uint64_t left = file->inode->size - file->position;
        struct frame *page = cache_get(file->inode, file->position >> PAGE_SHIFT);
        bool copied;

        if (!page)
            return done ? (intptr_t)done : -EIO;
        if (part > left)
            part = left;
        copied = user_copy((void *)(buffer + done), (uint8_t *)direct(frame_address(page)) + (file->position & (PAGE_BYTES - 1)), part);
        cache_put(page);
        if (!copied)
            return done ? (intptr_t)done : -EFAULT;
        file->position += part;
        done += part;
    }
    return done;
}

/* The page to store to: one that is all new, or beyond the end, is not read first. */
static struct frame *page_to_write(struct inode *inode, uint64_t position, word part)
{
    uint64_t start = position & -(uint64_t)PAGE_BYTES;
    struct frame *page;

    if (start < inode->size && part < PAGE_BYTES)
        return cache_get(inode, position >> PAGE_SHIFT);
    page = cache_get_new(inode, position >> PAGE_SHIFT);
    if (page && start >= inode->size)
        zero_page(direct(frame_address(page)));
    return page;
}

intptr_t file_write(struct file *file, word buffer, word bytes)
{
    struct inode *inode = file->inode;
    word done = 0;

    if (!inode)
        return write_console(buffer, bytes);
    if (file->flags & O_APPEND)
        file->position = inode->size;
    if (file->position + bytes > MAX_FILE_BYTES)
        return -EFBIG;
    while (done < bytes) {
        word part = part_at(file->position, bytes - done);
        struct frame *page = page_to_write(inode, file->position, part);
        bool copied;

        int error = page ? cache_reserve(page) : -EIO;

        if (error && page)
            cache_put(page);
        if (error)
            return done ? (intptr_t)done : error;
        copied = user_copy((uint8_t *)direct(frame_address(page)) + (file->position & (PAGE_BYTES - 1)), (const void *)(buffer + done), part);
        cache_mark_dirty(page);
        cache_put(page);
        if (!copied)
            return done ? (intptr_t)done : -EFAULT;
        file->position += part;
        done += part;
        if (file->position > inode->size) {
            error = inode_set_size(inode, file->position);
            if (error)
                return error;
        }
    }
    return done;
}
