/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories: files of entries of 64 bytes, an inode's number (0: free) and a name. There are no entries for the directory itself and the
 * one above it.
 */
#include "../../lib/string.h"
#include "inode_internal.h"

enum { ENTRIES = BLOCK_BYTES / sizeof(struct directory_entry) };

/* A place in a directory; its block is held. */
struct place {
    struct buffer *buffer;
    struct directory_entry *entry;
};

static uint32_t blocks_of(const struct inode *directory)
{
    return directory->size / BLOCK_BYTES;
}

static void let_go(struct place place)
{
    if (place.buffer)
        block_put(place.buffer);
}

/* The entry with a name; with null, a free one. */
static struct place find(struct inode *directory, const char *name)
{
    for (uint32_t block = 0; block < blocks_of(directory); block++) {
        struct buffer *buffer = inode_block(directory, block, false);
        struct directory_entry *entries = buffer ? buffer->data : NULL;

        for (unsigned i = 0; entries && i < ENTRIES; i++)
            if (name ? entries[i].inode && strncmp(entries[i].name, name, NAME_BYTES) == 0 : !entries[i].inode)
                return (struct place){buffer, &entries[i]};
        if (buffer)
            block_put(buffer);
    }
    return (struct place){NULL, NULL};
}

/* A free entry, in a block of its own if all are taken. */
static struct place free_place(struct inode *directory)
{
    struct place place = find(directory, NULL);
    struct buffer *buffer;

    if (place.entry)
        return place;
    buffer = inode_block(directory, blocks_of(directory), true);
    if (!buffer)
        return place;
    directory->size += BLOCK_BYTES;
    inode_write(directory);
    return (struct place){buffer, buffer->data};
}

static int enter(struct inode *directory, const char *name, uint32_t inode)
{
    struct place place = free_place(directory);

    if (!place.entry)
        return -ENOSPC;
    *place.entry = (struct directory_entry){.inode = inode};
    memcpy(place.entry->name, name, strlen(name));
    block_changed(place.buffer);
    let_go(place);
    return 0;
}

static void remove_entry(struct place place)
{
    *place.entry = (struct directory_entry){0};
    block_changed(place.buffer);
}

static bool is_empty(struct inode *directory)
{
    struct directory_entry entry;
    uint32_t offset = 0;

    for (uint32_t block = 0; block < blocks_of(directory); block++) {
        struct buffer *buffer = inode_block(directory, block, false);

        if (!buffer)
            continue;
        for (unsigned i = 0; i < ENTRIES; i++) {
            memcpy(&entry, (struct directory_entry *)buffer->data + i, sizeof entry);
            offset += entry.inode != 0;
        }
        block_put(buffer);
    }
    return offset == 0;
}

static int check_directory(const struct inode *directory, const char *name)
{
    if (directory->kind != KIND_DIRECTORY)
        return -ENOTDIR;
    if (!*name)
        return -EINVAL;
    return strlen(name) < NAME_BYTES ? 0 : -ENAMETOOLONG;
}

int inode_lookup(struct inode *directory, const char *name, struct inode **found)
{
    int error = check_directory(directory, name);
    struct place place;

    if (error)
        return error;
    do {
        fs_begin();
        place = find(directory, name);
        error = place.entry ? inode_get_locked(place.entry->inode, found) : -ENOENT;
        let_go(place);
        fs_end(error);
    } while (error == -EMFILE && fs_make_inodes_free());
    return error;
}

static int create(struct inode *directory, const char *name, enum file_kind kind, struct inode **made)
{
    struct place place = find(directory, name);
    int error;

    let_go(place);
    if (place.entry)
        return -EEXIST;
    if (!directory->links)
        return -ENOENT; /* removed meanwhile */
    error = inode_new(kind, made);
    if (error)
        return error;
    error = enter(directory, name, (*made)->number);
    (*made)->links = !error;
    if (error) {
        (*made)->kind = KIND_NONE;
        (*made)->references = 0;
    }
    inode_write(*made);
    if (error)
        (*made)->number = 0;
    return error;
}

int inode_create(struct inode *directory, const char *name, enum file_kind kind, struct inode **made)
{
    int error = check_directory(directory, name);

    if (error)
        return error;
    do {
        fs_begin();
        error = fs_end(create(directory, name, kind, made));
    } while (error == -EMFILE && fs_make_inodes_free());
    return error;
}

/* Takes an entry and the link away; the inode is the caller's to put, which may free it. */
static int drop_entry(struct inode *directory, const char *name, struct inode **dropped)
{
    struct place place = find(directory, name);
    int error = place.entry ? inode_get_locked(place.entry->inode, dropped) : -ENOENT;

    if (!error && (*dropped)->kind == KIND_DIRECTORY && !is_empty(*dropped)) {
        (*dropped)->references--;
        error = -ENOTEMPTY;
    }
    if (!error) {
        remove_entry(place);
        (*dropped)->links--;
        inode_write(*dropped);
    }
    let_go(place);
    return error;
}

int inode_unlink(struct inode *directory, const char *name)
{
    int error = check_directory(directory, name);
    struct inode *dropped;

    if (error)
        return error;
    fs_begin();
    error = fs_end(drop_entry(directory, name, &dropped));
    if (!error)
        inode_put(dropped);
    return error;
}

static int kind_of(uint32_t number, uint32_t *kind)
{
    struct inode *inode;
    int error = inode_get_locked(number, &inode);

    if (error)
        return error;
    *kind = inode->kind;
    inode->references--;
    return 0;
}

/*
 * A directory could come to lie below itself, so directories stay in the one where they are. What is replaced must be of the same kind.
 */
static int check_moved(uint32_t number, const struct inode *from, struct inode *to, const char *new_name)
{
    uint32_t kind = KIND_NONE, replaced_kind = KIND_NONE;
    struct place place = find(to, new_name);
    int error = kind_of(number, &kind);

    if (!error && place.entry)
        error = kind_of(place.entry->inode, &replaced_kind);
    let_go(place);
    if (error)
        return error;
    if (kind == KIND_DIRECTORY && from != to)
        return -EINVAL;
    if (replaced_kind == KIND_NONE || replaced_kind == kind)
        return 0;
    return kind == KIND_DIRECTORY ? -ENOTDIR : -EISDIR;
}

static int rename_entry(struct inode *from, const char *old_name, struct inode *to, const char *new_name, struct inode **replaced)
{
    struct place place = find(from, old_name);
    uint32_t number = place.entry ? place.entry->inode : 0;
    int error = number ? check_moved(number, from, to, new_name) : -ENOENT;

    let_go(place);
    *replaced = NULL;
    if (error || (from == to && strcmp(old_name, new_name) == 0))
        return error;
    if (!to->links)
        return -ENOENT;
    error = drop_entry(to, new_name, replaced);
    if (error && error != -ENOENT)
        return error;
    error = enter(to, new_name, number);
    if (error)
        return error;
    place = find(from, old_name);
    if (place.entry)
        remove_entry(place);
    let_go(place);
    return 0;
}

int inode_rename(struct inode *from, const char *old_name, struct inode *to, const char *new_name)
{
    int error = check_directory(from, old_name);
    struct inode *replaced;

    if (!error)
        error = check_directory(to, new_name);
    if (error)
        return error;
    fs_begin();
    error = fs_end(rename_entry(from, old_name, to, new_name, &replaced));
    if (replaced)
        inode_put(replaced);
    return error;
}

int inode_list(struct inode *directory, uint32_t *offset, struct directory_entry *entry)
{
    fs_begin();
    for (; *offset < blocks_of(directory) * ENTRIES; ++*offset) {
        struct buffer *buffer = inode_block(directory, *offset / ENTRIES, false);

        if (!buffer)
            continue;
        memcpy(entry, (struct directory_entry *)buffer->data + *offset % ENTRIES, sizeof *entry);
        block_put(buffer);
        if (entry->inode) {
            ++*offset;
            entry->name[NAME_BYTES - 1] = 0;
            return fs_end(1);
        }
    }
    return fs_end(0);
}
