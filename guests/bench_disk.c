/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "bench_disk.h"

#include <stdbool.h>

#include "lib/cmdline.h"
#include "lib/exit.h"
#include "lib/frames.h"
#include "lib/ide.h"
#include "lib/interrupts.h"
#include "lib/pic.h"
#include "lib/ports.h"
#include "lib/print.h"

enum { IDE_IRQ = 14, REQUEST_DEFAULT = 1 << 20, REQUEST_MAX = 16 << 20 };
enum { IDENTIFY_WORDS = 256, IDENTIFY_SECTORS = 100 }; /* of the sectors: two words */

static uint16_t master;
static uint32_t disk_sectors;
static uint32_t request_bytes;
static uint32_t buffer;
static struct dma_descriptor *table;
static volatile bool is_done;

static void on_interrupt(struct frame *frame)
{
    (void)frame;
    inb(IDE_STATUS);
    is_done = true;
}

static _Noreturn void give_up(const char *why)
{
    kprintf("disk: %s\n", why);
    guest_exit(EXIT_BAD_ARGUMENTS);
}

static uint32_t identify_sectors(void)
{
    uint16_t words[IDENTIFY_WORDS];

    ide_command(IDENTIFY, 0, 0);
    if (!ide_wait() || !(inb(IDE_CONTROL) & STATUS_DRQ))
        give_up("no drive");
    for (unsigned i = 0; i < IDENTIFY_WORDS; i++)
        words[i] = inw(IDE_DATA);
    return words[IDENTIFY_SECTORS] | (uint32_t)words[IDENTIFY_SECTORS + 1] << 16;
}

/* Frames come one behind the other. */
static void lay_out_table(void)
{
    table = (struct dma_descriptor *)frame_alloc();
    buffer = frame_alloc();
    for (uint32_t done = PAGE_BYTES; done < request_bytes; done += PAGE_BYTES)
        if (frame_alloc() != buffer + done)
            give_up("no memory in one piece");
    for (uint32_t done = 0, i = 0; done < request_bytes; done += DESCRIPTOR_BYTES_MAX, i++) {
        uint32_t left = request_bytes - done;

        table[i].address = buffer + done;
        table[i].bytes = left < DESCRIPTOR_BYTES_MAX ? left : 0;
        if (left <= DESCRIPTOR_BYTES_MAX)
            table[i].bytes |= DESCRIPTOR_LAST;
    }
}

static void set_up(void)
{
    request_bytes = cmdline_number("request", REQUEST_DEFAULT);
    if (!request_bytes || request_bytes % PAGE_BYTES || request_bytes > REQUEST_MAX)
        give_up("request= must be whole pages, at most 16M");
    master = ide_master();
    if (!master)
        give_up("no controller");
    disk_sectors = identify_sectors();
    if (disk_sectors < request_bytes / SECTOR_BYTES)
        give_up("a request is larger than the disk");
    lay_out_table();
    pic_init();
    irq_enable(IDE_IRQ, on_interrupt);
}

static void transfer(unsigned command, uint32_t lba)
{
    is_done = false;
    ide_command(command, lba, request_bytes / SECTOR_BYTES);
    master_start(master, table, command == READ_DMA_EXT);
    while (!is_done) {
        interrupts_on_and_halt();
        interrupts_off();
    }
    if (inb(master + MASTER_STATUS) & (MASTER_ACTIVE | MASTER_ERROR) || inb(IDE_CONTROL) & STATUS_ERR)
        give_up("a transfer failed");
    master_stop(master);
}

static void transfer_all(unsigned command, uint32_t count)
{
    uint32_t sectors = request_bytes / SECTOR_BYTES;
    uint32_t lba = 0;

    for (uint32_t i = 0; i < count; i++, lba += sectors) {
        if (lba + sectors > disk_sectors)
            lba = 0;
        transfer(command, lba);
    }
}

static uint32_t check_buffer(void)
{
    uint32_t check = 0;

    for (uint32_t at = 0; at < request_bytes; at += PAGE_BYTES)
        check = check * 31 + *(volatile uint32_t *)(buffer + at);
    return check;
}

uint32_t run_disk_read(uint32_t count)
{
    set_up();
    transfer_all(READ_DMA_EXT, count);
    return check_buffer();
}

uint32_t run_disk_write(uint32_t count)
{
    set_up();
    for (uint32_t at = 0; at < request_bytes; at += PAGE_BYTES)
        *(volatile uint32_t *)(buffer + at) = at;
    transfer_all(WRITE_DMA_EXT, count);
    return check_buffer();
}
