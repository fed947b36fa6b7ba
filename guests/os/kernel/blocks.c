/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata blocks and the write-ahead log.
 *
 *     commit: blocks to the log, flush, header (one sector), flush, blocks to their places, flush, empty header, flush
 *     mount:  a header with a count and the right checksum: its blocks to their places, flush, empty header
 *
 * 1. A changed buffer reaches its place on the disk only after the log's header that names it is safe.
 * 2. The header's first sector holds all of it, and a drive writes a sector whole or not at all.
 * 3. Data of a new block is written before the commit of what names it, and the flush in the commit makes it safe first.
 */
#include "blocks.h"

#include "../include/errors.h"
#include "../../lib/string.h"
#include "frames.h"

enum { BUFFERS = 64, LOG_MAGIC = 0x474F4C45 };

static struct buffer buffers[BUFFERS];
static struct extent partition;
static uint32_t log_first, log_blocks;
static unsigned changed;
static uint32_t uses;
static paddr header_page;

static uint32_t checksum_of(const struct log_header *header)
{
    uint32_t sum = header->count;

    for (unsigned i = 0; i < header->count; i++)
        sum = (sum << 5 | sum >> 27) ^ header->blocks[i];
    return ~sum;
}

int data_transfer(enum disk_operation operation, uint32_t block, const paddr pages[], unsigned count)
{
    if (block >= partition.count || count > partition.count - block)
        return -EIO;
    return disk_transfer(operation, partition.first + block, pages, count);
}

static int write_header(uint32_t count)
{
    struct log_header *header = direct(header_page);

    header->magic = LOG_MAGIC;
    header->count = count;
    header->checksum = checksum_of(header);
    return data_transfer(DISK_WRITE, log_first, &header_page, 1);
}

/* Blocks of the log to their places, through the page of a buffer that is free. */
static int replay(void)
{
    struct log_header *header = direct(header_page);
    int error = data_transfer(DISK_READ, log_first, &header_page, 1);

    if (error || header->magic != LOG_MAGIC || !header->count)
        return error;
    if (header->count > LOG_CAPACITY || header->count >= log_blocks || header->checksum != checksum_of(header))
        return 0; /* never committed */
    for (unsigned i = 0; !error && i < header->count; i++) {
        error = data_transfer(DISK_READ, log_first + 1 + i, &buffers[0].page, 1);
        if (!error)
            error = data_transfer(DISK_WRITE, header->blocks[i], &buffers[0].page, 1);
    }
    if (!error)
        error = disk_flush();
    return error ? error : write_header(0);
}

int blocks_init(struct extent where, uint32_t first, uint32_t count)
{
    partition = where;
    log_first = first;
    log_blocks = count;
    header_page = frame_alloc(FRAME_ZERO);
    for (struct buffer *buffer = buffers; buffer < buffers + BUFFERS; buffer++) {
        *buffer = (struct buffer){.page = frame_alloc(FRAME_ZERO)};
        if (!buffer->page || !header_page)
            return -ENOMEM;
        buffer->data = direct(buffer->page);
    }
    return replay();
}

static struct buffer *find(uint32_t block)
{
    for (struct buffer *buffer = buffers; buffer < buffers + BUFFERS; buffer++)
        if (buffer->is_used && buffer->block == block)
            return buffer;
    return NULL;
}

static struct buffer *least_recent(void)
{
    struct buffer *found = NULL;

    for (struct buffer *buffer = buffers; buffer < buffers + BUFFERS; buffer++)
        if (!buffer->holds && !buffer->is_changed && (!found || !buffer->is_used || (found->is_used && buffer->used_at < found->used_at)))
            found = buffer;
    return found;
}

static struct buffer *get(uint32_t block, bool is_read)
{
    struct buffer *buffer = find(block);

    if (!buffer) {
        buffer = least_recent();
        if (!buffer)
            return NULL;
        buffer->is_used = false;
        buffer->block = block;
        if (is_read && data_transfer(DISK_READ, block, &buffer->page, 1) != 0)
            return NULL;
        buffer->is_used = true;
    }
    if (!is_read)
        memset(buffer->data, 0, BLOCK_BYTES);
    buffer->used_at = ++uses;
    buffer->holds++;
    return buffer;
}

struct buffer *block_get(uint32_t block)
{
    return get(block, true);
}

struct buffer *block_get_zeroed(uint32_t block)
{
    return get(block, false);
}

void block_put(struct buffer *buffer)
{
    buffer->holds--;
}

void block_changed(struct buffer *buffer)
{
    changed += !buffer->is_changed;
    buffer->is_changed = true;
}

bool log_has_room(unsigned count)
{
    return changed + count < BUFFERS * 3 / 4 && changed + count < log_blocks && changed + count <= LOG_CAPACITY;
}

/* The changed buffers, in the order of the header: to the log, where they lie in a row, by one transfer for many. */
static int write_to_log(void)
{
    struct log_header *header = direct(header_page);
    paddr pages[TRANSFER_BLOCKS];
    unsigned count = 0, waiting = 0;
    int error = 0;

    for (struct buffer *buffer = buffers; !error && buffer < buffers + BUFFERS; buffer++) {
        if (!buffer->is_changed)
            continue;
        header->blocks[count++] = buffer->block;
        pages[waiting++] = buffer->page;
        if (waiting == TRANSFER_BLOCKS || count == changed) {
            error = data_transfer(DISK_WRITE, log_first + 1 + count - waiting, pages, waiting);
            waiting = 0;
        }
    }
    return error ? error : disk_flush();
}

static int write_to_places(void)
{
    int error = 0;

    for (struct buffer *buffer = buffers; !error && buffer < buffers + BUFFERS; buffer++)
        if (buffer->is_changed)
            error = data_transfer(DISK_WRITE, buffer->block, &buffer->page, 1);
    return error ? error : disk_flush();
}

int log_commit(void)
{
    int error;

    if (!changed)
        return disk_flush();
    error = write_to_log();
    if (!error)
        error = write_header(changed);
    if (!error)
        error = disk_flush();
    if (!error)
        error = write_to_places();
    if (!error)
        error = write_header(0);
    if (!error)
        error = disk_flush(); /* or the next transaction's blocks could meet the old header */
    if (error)
        return error; /* all stay changed: the next commit tries again */
    for (struct buffer *buffer = buffers; buffer < buffers + BUFFERS; buffer++)
        buffer->is_changed = false;
    changed = 0;
    return 0;
}
