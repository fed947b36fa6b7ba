/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Blocks of the heap: first fit in a list by address, neighbours that are free joined when one is looked for. */
#include "system.h"

struct block {
    size_t bytes;        /* behind this header */
    struct block *next;  /* by address */
    bool is_free;
} __attribute__((aligned(16)));

enum { LEAST_GROWTH = 65536 };

static struct block *first, *last;

static void join(struct block *block)
{
    while (block->next && block->next->is_free && (char *)(block + 1) + block->bytes == (char *)block->next) {
        if (block->next == last)
            last = block;
        block->bytes += sizeof *block + block->next->bytes;
        block->next = block->next->next;
    }
}

static struct block *find(size_t bytes)
{
    for (struct block *block = first; block; block = block->next)
        if (block->is_free) {
            join(block);
            if (block->bytes >= bytes)
                return block;
        }
    return NULL;
}

static struct block *grow(size_t bytes)
{
    size_t wanted = bytes + sizeof(struct block) > LEAST_GROWTH ? bytes + sizeof(struct block) : LEAST_GROWTH;
    struct block *block = sbrk(wanted);

    if (!block)
        return NULL;
    *block = (struct block){.bytes = wanted - sizeof *block, .is_free = true};
    if (last)
        last->next = block;
    else
        first = block;
    last = block;
    return block;
}

static void split(struct block *block, size_t bytes)
{
    struct block *rest = (struct block *)((char *)(block + 1) + bytes);

    if (block->bytes < bytes + 2 * sizeof *block)
        return;
    *rest = (struct block){.bytes = block->bytes - bytes - sizeof *rest, .next = block->next, .is_free = true};
    if (block == last)
        last = rest;
    block->next = rest;
    block->bytes = bytes;
}

void *try_allocate(size_t bytes)
{
    size_t rounded = (bytes + 15) & ~(size_t)15;
    struct block *block = rounded < bytes ? NULL : find(rounded);

    if (!block && rounded >= bytes)
        block = grow(rounded);
    if (!block)
        return NULL;
    split(block, rounded);
    block->is_free = false;
    memset(block + 1, 0, rounded);
    return block + 1;
}

void *allocate(size_t bytes)
{
    void *block = try_allocate(bytes);

    if (!block)
        die("out of memory: %u bytes wanted", (unsigned)bytes);
    return block;
}

void release(void *block)
{
    if (block)
        ((struct block *)block - 1)->is_free = true;
}
