/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The PIIX IDE controller and its drive, a disk of DISK_SECTORS without anything on it that is worth keeping. */
#include "../lib/ide.h"
#include "../lib/ports.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { DISK_SECTORS = 16 << 20 >> 9, PAGE_SECTORS = PAGE_BYTES / SECTOR_BYTES };
enum { IDE_DEVICE_NUMBER = 1, IDE_FUNCTION = 1, PCI_COMMAND = 0x04, PCI_CLASS = 0x08, PCI_BAR4 = 0x20 };
enum { OTHER_MASTER = 0xD000, NO_DRIVE_TURNS = 1000, RESET_TURNS = 1000000, DMA_TURNS = 10000000 };
#define BEYOND_RAM 0x80000000u
#define ROM_ADDRESS 0xFFFFF000u

static uint16_t master;

static bool is_active(void)
{
    return inb(master + MASTER_STATUS) & MASTER_ACTIVE;
}

static bool was_interrupted(void)
{
    return inb(master + MASTER_STATUS) & MASTER_INTERRUPT;
}

static unsigned status_after_wait(void)
{
    require(ide_wait(), "the drive stays busy");
    return inb(IDE_CONTROL);
}

static void set_up(void)
{
    master = ide_master();
    require(master, "there is no PIIX3 IDE controller");
    master_stop(master);
    outb(IDE_CONTROL, CONTROL_RESET);
    outb(IDE_CONTROL, 0);
    for (unsigned turn = 0; turn < RESET_TURNS && !(inb(IDE_CONTROL) & STATUS_DRDY); turn++)
        outb(IDE_DEVICE, DEVICE_LBA); /* QEMU takes it only when the reset is over, which the second drive does not tell */
    require(status_after_wait() & STATUS_DRDY, "there is no drive");
    outb(master + MASTER_STATUS, MASTER_INTERRUPT | MASTER_ERROR);
}

static void expect_good(const char *what)
{
    expect(what, 0, status_after_wait() & (STATUS_BSY | STATUS_DF | STATUS_DRQ | STATUS_ERR));
}

static void expect_error(const char *what, unsigned errors)
{
    expect(what, STATUS_ERR, status_after_wait() & (STATUS_BSY | STATUS_DRQ | STATUS_ERR));
    expect_true(what, inb(IDE_ERROR) & errors);
}

/* ---- programmed transfers ---- */

static void await_data(void)
{
    expect("BSY, DRQ and ERR before data", STATUS_DRQ, status_after_wait() & (STATUS_BSY | STATUS_DRQ | STATUS_ERR));
}

static void take_words(word address, word count)
{
    __asm__ volatile("rep insw" : "+D"(address), "+c"(count) : "d"(IDE_DATA) : "memory");
}

static void take_double_words(word address, word count)
{
    __asm__ volatile("rep insl" : "+D"(address), "+c"(count) : "d"(IDE_DATA) : "memory");
}

static void give_words(word address, word count)
{
    __asm__ volatile("rep outsw" : "+S"(address), "+c"(count) : "d"(IDE_DATA) : "memory");
}

static void give_double_words(word address, word count)
{
    __asm__ volatile("rep outsl" : "+S"(address), "+c"(count) : "d"(IDE_DATA) : "memory");
}

static void pio_read(unsigned command, word address, uint64_t lba, unsigned count, unsigned block)
{
    ide_command(command, lba, count);
    for (unsigned done = 0; done < count; done += block) {
        unsigned sectors = count - done < block ? count - done : block;

        await_data();
        take_words(address + done * SECTOR_BYTES, sectors * SECTOR_BYTES / 2);
    }
    expect_good("the end of a read");
}

static void pio_write(unsigned command, word address, uint64_t lba, unsigned count, unsigned block)
{
    ide_command(command, lba, count);
    for (unsigned done = 0; done < count; done += block) {
        unsigned sectors = count - done < block ? count - done : block;

        await_data();
        give_words(address + done * SECTOR_BYTES, sectors * SECTOR_BYTES / 2);
    }
    expect_good("the end of a write");
}

/* ---- bus master ---- */

/* QEMU's drive shows DRQ while it transfers: only the bus master tells when it is done. */
static void await_master(void)
{
    for (unsigned turn = 0; turn < DMA_TURNS && is_active() && !was_interrupted(); turn++)
        continue;
    status_after_wait();
}

static void dma_begin(unsigned command, uint64_t lba, unsigned count, const struct dma_descriptor *table)
{
    ide_command(command, lba, count);
    master_start(master, table, command == READ_DMA || command == READ_DMA_EXT);
    await_master();
}

static void dma(unsigned command, uint64_t lba, unsigned count, const struct dma_descriptor *table)
{
    dma_begin(command, lba, count, table);
    expect_true("the bus master's interrupt", was_interrupted());
    expect("the bus master's activity", 0, is_active());
    expect_good("the end of a DMA transfer");
    master_stop(master);
}

static struct dma_descriptor *table_of_one(word address, unsigned bytes)
{
    struct dma_descriptor *table = (struct dma_descriptor *)frame_new();

    table[0].address = (uint32_t)address;
    table[0].bytes = bytes | DESCRIPTOR_LAST;
    return table;
}

static void fill(word address, unsigned bytes, uint32_t seed)
{
    for (unsigned i = 0; i < bytes / 4; i++)
        at(address)[i] = seed = seed * 1664525 + 1013904223;
}

static void expect_filled(const char *what, word address, unsigned bytes, uint32_t seed)
{
    for (unsigned i = 0; i < bytes / 4; i++)
        expect(what, seed = seed * 1664525 + 1013904223, at(address)[i]);
}

static void dma_page(unsigned command, uint64_t lba, word page)
{
    dma(command, lba, PAGE_SECTORS, table_of_one(page, PAGE_BYTES));
}

/* Puts a page on the disk and from there to memory: a store that no instruction makes. */
static void store_by_dma(word target, word source)
{
    dma_page(WRITE_DMA, 64, source);
    dma_page(READ_DMA, 64, target);
}

/* ---- cases ---- */

static void check_configuration_space(word unused)
{
    (void)unused;
    expect("host bridge", 0x12378086u, pci_read(0, 0, 0));
    expect("ISA bridge", 0x70008086u, pci_read(1, 0, 0));
    expect("IDE controller", 0x70108086u, pci_read(1, 1, 0));
    expect("its class", 0x010180, pci_read(1, 1, PCI_CLASS) >> 8);
    expect("ISA bridge's class", 0x0601, pci_read(1, 0, PCI_CLASS) >> 16);
    expect("a multifunction device", 0x80, pci_read(1, 0, 0x0C) >> 16 & 0x80);
    expect("no such device", 0xFFFFFFFFu, pci_read(31, 0, 0));
    expect("no such function", 0xFFFFFFFFu, pci_read(1, 2, 0));
    pci_read(1, 1, 0);
    expect("a word of the data port", 0x7010, inw(0xCFE));
    expect("a byte of it", 0x70, inb(0xCFF));
    outl(0xCF8, 1 << 11 | 1 << 8);
    expect("the data port without the enable bit", 0xFFFFFFFFu, inl(0xCFC));
}

static void check_base_address(word unused)
{
    uint32_t before = pci_read(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_BAR4);
    uint32_t command = pci_read(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_COMMAND) & 0xFFFF;

    (void)unused;
    outl(master + MASTER_TABLE, 0x12345678);
    pci_write(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_BAR4, 0xFFFFFFFF);
    expect("its size", 0xFFFFFFF1u, pci_read(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_BAR4));
    pci_write(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_BAR4, OTHER_MASTER);
    expect("the table's address, moved", 0x12345678, inl(OTHER_MASTER + MASTER_TABLE));
    expect("where it was", 0xFFFFFFFFu, inl(master + MASTER_TABLE));
    pci_write(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_COMMAND, command & ~1u);
    expect("without I/O space", 0xFFFFFFFFu, inl(OTHER_MASTER + MASTER_TABLE));
    pci_write(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_BAR4, before);
    pci_write(IDE_DEVICE_NUMBER, IDE_FUNCTION, PCI_COMMAND, command);
    expect("back again", 0x12345678, inl(master + MASTER_TABLE));
}

static void check_identify(word unused)
{
    word page = frame_new();
    const uint16_t *words = (const uint16_t *)page;

    (void)unused;
    set_up();
    ide_command(IDENTIFY, 0, 0);
    await_data();
    take_words(page, SECTOR_BYTES / 2);
    expect_good("the end of IDENTIFY");
    expect("an ATA drive", 0, words[0] & 0x8000);
    expect("LBA and DMA", 0x300, words[49] & 0x300);
    expect("sectors by 28 bits", DISK_SECTORS, words[60] | (uint32_t)words[61] << 16);
    expect("LBA48", 1 << 10, words[83] & 1 << 10);
    expect("sectors by 48 bits", DISK_SECTORS, words[100] | (uint32_t)words[101] << 16);
    expect("more of them", 0, words[102] | words[103]);
    expect("most sectors of a block", 16, words[47] & 0xFF);
    expect("cylinders", DISK_SECTORS / (16 * 63), words[1]);
}

static void check_programmed(word unused)
{
    word source = frame_new(), target = frame_new();

    (void)unused;
    set_up();
    fill(source, 3 * SECTOR_BYTES, 1);
    pio_write(WRITE_SECTORS, source, 100, 3, 1);
    pio_read(READ_SECTORS, target, 100, 3, 1);
    expect_filled("what was written", target, 3 * SECTOR_BYTES, 1);
    ide_command(READ_SECTORS, 101, 1);
    await_data();
    take_double_words(target, SECTOR_BYTES / 4);
    expect_good("32-bit reads");
    expect("by double words", 0, (unsigned)memcmp((void *)target, (void *)(source + SECTOR_BYTES), SECTOR_BYTES));
    ide_command(WRITE_SECTORS, 200, 1);
    await_data();
    give_double_words(source + SECTOR_BYTES, SECTOR_BYTES / 4);
    expect_good("32-bit writes");
    pio_read(READ_SECTORS, target, 200, 1, 1);
    expect("by double words, back", 0, (unsigned)memcmp((void *)target, (void *)(source + SECTOR_BYTES), SECTOR_BYTES));
}

static void check_extended(word unused)
{
    word source = frame_new(), target = frame_new();

    (void)unused;
    set_up();
    fill(source, 2 * SECTOR_BYTES, 7);
    pio_write(WRITE_SECTORS_EXT, source, DISK_SECTORS - 2, 2, 1);
    pio_read(READ_SECTORS_EXT, target, DISK_SECTORS - 2, 2, 1);
    expect_filled("the last two sectors", target, 2 * SECTOR_BYTES, 7);
    outb(IDE_LBA_LOW, 0x12);
    outb(IDE_LBA_LOW, 0x34);
    expect("the newer byte", 0x34, inb(IDE_LBA_LOW));
    outb(IDE_CONTROL, CONTROL_HOB);
    expect("the older byte", 0x12, inb(IDE_LBA_LOW));
    outb(IDE_CONTROL, 0);
}

static void set_multiple(unsigned sectors)
{
    outb(IDE_COUNT, (uint8_t)sectors);
    outb(IDE_STATUS, SET_MULTIPLE);
}

static void check_multiple(word unused)
{
    word source = frame_new(), target = frame_new();

    (void)unused;
    set_up();
    set_multiple(4);
    expect_good("blocks of four");
    fill(source, 7 * SECTOR_BYTES, 3);
    pio_write(WRITE_MULTIPLE, source, 300, 7, 4);
    pio_read(READ_MULTIPLE_EXT, target, 300, 7, 4);
    expect_filled("in blocks", target, 7 * SECTOR_BYTES, 3);
    pio_read(READ_SECTORS, target, 300, 2, 1);
    set_multiple(3);
    expect_error("blocks of three", ERROR_ABRT);
    set_multiple(32);
    expect_error("blocks of 32", ERROR_ABRT);
    set_multiple(16);
    expect_good("blocks of 16");
}

static void check_dma(word unused)
{
    word source = frames_new_aligned(4), target = frames_new_aligned(4);
    struct dma_descriptor *table = (struct dma_descriptor *)frame_new();

    (void)unused;
    set_up();
    fill(source, 4 * PAGE_BYTES, 11);
    dma(WRITE_DMA, 1000, 4 * PAGE_SECTORS, table_of_one(source, 4 * PAGE_BYTES));
    table[0] = (struct dma_descriptor){(uint32_t)target, 2};
    table[1] = (struct dma_descriptor){(uint32_t)target + 2, PAGE_BYTES};
    table[2] = (struct dma_descriptor){(uint32_t)target + 2 + PAGE_BYTES, (3 * PAGE_BYTES - 2) | DESCRIPTOR_LAST};
    dma(READ_DMA, 1000, 4 * PAGE_SECTORS, table);
    expect_filled("by three descriptors", target, 4 * PAGE_BYTES, 11);
    pio_read(READ_SECTORS, target, 1000 + PAGE_SECTORS, 8, 1);
    expect("by the processor", 0, (unsigned)memcmp((void *)target, (void *)(source + PAGE_BYTES), PAGE_BYTES));
}

static void check_large_dma(word unused)
{
    enum { PARTS = 16, BYTES = PARTS * DESCRIPTOR_BYTES_MAX };
    word buffer = frames_new_aligned(BYTES / PAGE_BYTES);
    struct dma_descriptor *table = (struct dma_descriptor *)frame_new();

    (void)unused;
    set_up();
    fill(buffer, BYTES, 13);
    for (unsigned i = 0; i < PARTS; i++)
        table[i] = (struct dma_descriptor){(uint32_t)buffer + i * DESCRIPTOR_BYTES_MAX, i + 1 < PARTS ? 0 : DESCRIPTOR_LAST};
    dma(WRITE_DMA_EXT, 4096, BYTES / SECTOR_BYTES, table);
    memset((void *)buffer, 0, BYTES);
    dma(READ_DMA_EXT, 4096, BYTES / SECTOR_BYTES, table);
    expect_filled("a megabyte", buffer, BYTES, 13);
}

static void check_short_table(word unused)
{
    word page = frame_new();

    (void)unused;
    set_up();
    fill(page, PAGE_BYTES, 17);
    dma_page(WRITE_DMA, 64, page);
    memset((void *)page, 0x55, PAGE_BYTES);
    dma_begin(READ_DMA, 64, PAGE_SECTORS, table_of_one(page, PAGE_BYTES - SECTOR_BYTES));
    expect("an interrupt", 0, was_interrupted());
    expect("activity", 0, is_active());
    expect_good("the drive after too short a table");
    expect("memory", 0x55555555, *at(page));
    master_stop(master);
    dma_page(READ_DMA, 64, page);
    expect_filled("the next transfer", page, PAGE_BYTES, 17);
}

static void check_long_table(word unused)
{
    word pages = frames_new_aligned(2);

    (void)unused;
    set_up();
    fill(pages, PAGE_BYTES, 19);
    dma_page(WRITE_DMA, 64, pages);
    memset((void *)pages, 0x55, 2 * PAGE_BYTES);
    dma_begin(READ_DMA, 64, PAGE_SECTORS, table_of_one(pages, 2 * PAGE_BYTES));
    expect_true("an interrupt", was_interrupted());
    expect_true("activity", is_active());
    expect_good("the drive after too long a table");
    expect_filled("what was asked for", pages, PAGE_BYTES, 19);
    expect("what was not", 0x55555555, *at(pages + PAGE_BYTES));
    master_stop(master);
    expect("activity after a stop", 0, is_active());
}

static void check_outside_memory(word unused)
{
    word page = frame_new();
    uint32_t rom;

    (void)unused;
    set_up();
    map(space, TEST_VA, ROM_ADDRESS, CACHE_DISABLE);
    rom = *at(TEST_VA + PAGE_BYTES - 16); /* the first instruction after a reset */
    fill(page, PAGE_BYTES, 23);
    dma_page(WRITE_DMA, 64, page);
    dma_page(READ_DMA, 64, BEYOND_RAM);
    dma_page(READ_DMA, 64, ROM_ADDRESS);
    expect("ROM", rom, *at(TEST_VA + PAGE_BYTES - 16));
    dma_page(READ_DMA, 64, page);
    expect_filled("RAM", page, PAGE_BYTES, 23);
}

/* Both orders: command first, and bus master first. */
static void check_start_first(word unused)
{
    word page = frame_new();

    (void)unused;
    set_up();
    fill(page, PAGE_BYTES, 29);
    dma_page(WRITE_DMA, 64, page);
    memset((void *)page, 0, PAGE_BYTES);
    master_start(master, table_of_one(page, PAGE_BYTES), true);
    expect_true("activity before the command", is_active());
    ide_command(READ_DMA, 64, PAGE_SECTORS);
    await_master();
    expect_good("the transfer");
    expect("activity", 0, is_active());
    expect_filled("data", page, PAGE_BYTES, 29);
    master_stop(master);
}

static void check_signature(const char *what)
{
    expect(what, 1, inb(IDE_ERROR));
    expect(what, 1, inb(IDE_COUNT));
    expect(what, 1, inb(IDE_LBA_LOW));
    expect(what, 0, inb(IDE_LBA_MID));
    expect(what, 0, inb(IDE_LBA_HIGH));
}

static void check_reset(word unused)
{
    (void)unused;
    set_up();
    ide_command(READ_SECTORS, 5, 2);
    await_data();
    outb(IDE_CONTROL, CONTROL_RESET);
    outb(IDE_CONTROL, 0);
    expect_good("after a reset in the middle of a read");
    check_signature("signature");
    outb(IDE_COUNT, 77);
    outb(IDE_STATUS, EXECUTE_DIAGNOSTIC);
    expect_good("after the diagnostic");
    check_signature("signature of the diagnostic");
}

static void check_interrupt(word unused)
{
    (void)unused;
    set_up();
    outb(IDE_CONTROL, CONTROL_NO_INTERRUPT);
    ide_command(FLUSH_CACHE, 0, 0);
    expect_good("a flush without its interrupt");
    expect("the interrupt", 0, was_interrupted());
    outb(IDE_CONTROL, 0);
    ide_command(FLUSH_CACHE_EXT, 0, 0);
    expect_good("a flush");
    expect_true("its interrupt", was_interrupted());
    outb(master + MASTER_STATUS, MASTER_INTERRUPT);
    expect("the interrupt, cleared", 0, was_interrupted());
}

static void check_beyond_the_end(word unused)
{
    word page = frame_new();

    (void)unused;
    set_up();
    pio_read(READ_SECTORS, page, DISK_SECTORS - 1, 1, 1);
    ide_command(READ_SECTORS, DISK_SECTORS, 1);
    expect_error("a read", ERROR_IDNF | ERROR_ABRT);
    ide_command(READ_SECTORS_EXT, (uint64_t)1 << 40, 1);
    expect_error("a read far away", ERROR_IDNF | ERROR_ABRT);
    dma_begin(READ_DMA, DISK_SECTORS - 1, 2, table_of_one(page, 2 * SECTOR_BYTES));
    expect_error("a transfer", ERROR_IDNF | ERROR_ABRT);
    expect_true("its interrupt", was_interrupted());
    expect("activity", 0, is_active());
    master_stop(master);
    dma_begin(WRITE_DMA_EXT, (uint64_t)DISK_SECTORS << 16, 2, table_of_one(page, 2 * SECTOR_BYTES));
    expect_error("a write", ERROR_IDNF | ERROR_ABRT);
    master_stop(master);
    pio_read(READ_SECTORS, page, DISK_SECTORS - 1, 1, 1);
}

static void check_unknown(word unused)
{
    static const uint8_t codes[] = {0x00, 0x08, 0x22, 0x60, 0x80, 0xA1, 0xB1, 0xF7, 0xFF};

    (void)unused;
    set_up();
    for (unsigned i = 0; i < sizeof codes; i++) {
        outb(IDE_DEVICE, DEVICE_LBA);
        outb(IDE_STATUS, codes[i]);
        expect_error("an unknown command", ERROR_ABRT);
    }
    outb(IDE_ERROR, 0x77);
    outb(IDE_STATUS, SET_FEATURES);
    expect_error("an unknown feature", ERROR_ABRT);
    outb(IDE_DEVICE, DEVICE_LBA);
    ide_command(FLUSH_CACHE, 0, 0);
    expect_good("a known command");
}

static void check_second_drive(word unused)
{
    (void)unused;
    set_up();
    outb(IDE_DEVICE, DEVICE_LBA | DEVICE_SECOND);
    expect("its status", 0, inb(IDE_STATUS));
    outb(IDE_STATUS, IDENTIFY);
    for (unsigned turn = 0; turn < NO_DRIVE_TURNS; turn++)
        expect("its status after a command", 0, inb(IDE_CONTROL));
    outb(IDE_DEVICE, DEVICE_LBA);
    expect_good("the first drive");
}

static void check_geometry(word unused)
{
    enum { HEADS = 4, TRACK = 8, CYLINDER = 3, HEAD = 2, SECTOR = 5 };
    word by_number = frame_new(), by_place = frame_new();
    unsigned number = (CYLINDER * HEADS + HEAD) * TRACK + SECTOR - 1;

    (void)unused;
    set_up();
    fill(by_number, SECTOR_BYTES, 31);
    pio_write(WRITE_SECTORS, by_number, number, 1, 1);
    outb(IDE_COUNT, TRACK);
    outb(IDE_DEVICE, DEVICE_CHS | (HEADS - 1));
    outb(IDE_STATUS, INITIALIZE_PARAMETERS);
    expect_good("a geometry");
    outb(IDE_COUNT, 1);
    outb(IDE_LBA_LOW, SECTOR);
    outb(IDE_LBA_MID, CYLINDER);
    outb(IDE_LBA_HIGH, 0);
    outb(IDE_DEVICE, DEVICE_CHS | HEAD);
    outb(IDE_STATUS, READ_SECTORS);
    await_data();
    take_words(by_place, SECTOR_BYTES / 2);
    expect_filled("a sector by its place", by_place, SECTOR_BYTES, 31);
    outb(IDE_COUNT, 63);
    outb(IDE_DEVICE, DEVICE_CHS | 15);
    outb(IDE_STATUS, INITIALIZE_PARAMETERS);
    expect_good("the geometry before");
}

/* The drive fills a page table in use: entries that were absent need no flush, others must be seen after one. */
static void check_page_table(word unused)
{
    word page = frame_new(), first = frame_new(), second = frame_new();
    entry_t *table;

    (void)unused;
    set_up();
    *at(first) = 0x11111111;
    *at(second) = 0x22222222;
    table = (entry_t *)((word)leaf(TEST_VA) & -(word)PAGE_BYTES);
    for (unsigned round = 0; round < 8; round++) {
        expect_page_fault("absent", try_read(TEST_VA + PAGE_BYTES), TEST_VA + PAGE_BYTES, 0);
        memset((void *)page, 0, PAGE_BYTES);
        ((entry_t *)page)[0] = first | PRESENT | WRITABLE;
        ((entry_t *)page)[1] = second | PRESENT | WRITABLE;
        store_by_dma((word)table, page);
        expect("a page that the drive mapped", 0x11111111, *at(TEST_VA));
        expect("another", 0x22222222, *at(TEST_VA + PAGE_BYTES));
        ((entry_t *)page)[0] = second | PRESENT | WRITABLE;
        ((entry_t *)page)[1] = 0;
        store_by_dma((word)table, page);
        invlpg(TEST_VA);
        invlpg(TEST_VA + PAGE_BYTES);
        expect("a page that the drive moved", 0x22222222, *at(TEST_VA));
        expect("A, which the processor set", ACCESSED, table[0] & ACCESSED);
        memset((void *)page, 0, PAGE_BYTES);
        store_by_dma((word)table, page);
        invlpg(TEST_VA);
    }
}

/* And a directory above it. */
static void check_directory(word unused)
{
    word page = frame_new(), marked = frame_new();
    entry_t *table = (entry_t *)frame_new();
    entry_t *directory = (entry_t *)((word)entry_at(space, TEST_VA, 2) & -(word)PAGE_BYTES);
    unsigned index = index_of(TEST_VA, 2);

    (void)unused;
    set_up();
    *at(marked) = 0x33333333;
    table[0] = marked | PRESENT | WRITABLE;
    memcpy((void *)page, directory, PAGE_BYTES);
    ((entry_t *)page)[index] = (word)table | PRESENT | WRITABLE | USER;
    store_by_dma((word)directory, page);
    expect("through a directory that the drive wrote", 0x33333333, *at(TEST_VA));
    ((entry_t *)page)[index] = 0;
    store_by_dma((word)directory, page);
    reload_cr3();
    expect_page_fault("gone", try_read(TEST_VA), TEST_VA, 0);
}

static void put_code(word page, uint32_t value)
{
    uint8_t *code = (uint8_t *)page;

    memset(code, 0x90, PAGE_BYTES);
    code[PAGE_BYTES - 6] = 0xB8; /* mov $value, %eax; ret */
    memcpy(code + PAGE_BYTES - 5, &value, sizeof value);
    code[PAGE_BYTES - 1] = 0xC3;
}

static uint32_t run_code(word page)
{
    return ((uint32_t(*)(void))(page + PAGE_BYTES - 16))();
}

static void check_code(word unused)
{
    word code = frame_new(), page = frame_new();

    (void)unused;
    set_up();
    put_code(code, 0);
    expect("code", 0, run_code(code));
    for (uint32_t round = 1; round < 24; round++) {
        put_code(page, round);
        store_by_dma(code, page);
        expect("code that the drive wrote", round, run_code(code));
        expect("the same again", round, run_code(code));
    }
}

/* REP INS across two pages, the second of which is missing: what was read must not be lost. */
static void check_fault_in_transfer(word unused)
{
    word source = frame_new();
    word middle = TEST_VA + PAGE_BYTES;
    word target = middle - SECTOR_BYTES / 2;
    word left = SECTOR_BYTES / 2;

    (void)unused;
    set_up();
    fill(source, SECTOR_BYTES, 37);
    pio_write(WRITE_SECTORS, source, 400, 1, 1);
    word low = map_new(TEST_VA, WRITABLE);
    ide_command(READ_SECTORS, 400, 1);
    await_data();
    take_words(target, left / 2);
    expect_page_fault("the missing page", try((void (*)(word))probe_write, middle), middle, ERROR_WRITE);
    word high = map_new(middle, WRITABLE);
    take_words(middle, left / 2);
    expect_good("the read");
    expect_filled("the low half", low + PAGE_BYTES - SECTOR_BYTES / 2, SECTOR_BYTES / 2, 37);
    expect("the high half", 0, (unsigned)memcmp((void *)high, (void *)(source + SECTOR_BYTES / 2), SECTOR_BYTES / 2));
}

static void check_start_later(word unused)
{
    word page = frame_new();

    (void)unused;
    set_up();
    fill(page, PAGE_BYTES, 41);
    dma_page(WRITE_DMA, 64, page);
    memset((void *)page, 0, PAGE_BYTES);
    ide_command(READ_DMA, 64, PAGE_SECTORS);
    expect("a command that waits for its bus master", STATUS_DRQ, status_after_wait() & (STATUS_BSY | STATUS_DRQ | STATUS_ERR));
    expect("memory meanwhile", 0, *at(page));
    master_start(master, table_of_one(page, PAGE_BYTES), true);
    await_master();
    expect_good("the transfer");
    expect_filled("data", page, PAGE_BYTES, 41);
    master_stop(master);
}

static const struct test_case cases[] = {
    {"disk.configuration-space", check_configuration_space, 0},
    {"disk.base-address", check_base_address, 0},
    {"disk.identify", check_identify, 0},
    {"disk.programmed", check_programmed, 0},
    {"disk.extended", check_extended, 0},
    {"disk.multiple", check_multiple, 0},
    {"disk.fault-in-transfer", check_fault_in_transfer, 0},
    {"disk.geometry", check_geometry, 0},
    {"disk.dma", check_dma, 0},
    {"disk.large-dma", check_large_dma, 0},
    {"disk.short-table", check_short_table, 0},
    {"disk.long-table", check_long_table, 0},
    {"disk.outside-memory", check_outside_memory, 0},
    {"disk.start-first", check_start_first, 0},
    {"disk.start-later", check_start_later, 0},
    {"disk.reset", check_reset, 0},
    {"disk.interrupt", check_interrupt, 0},
    {"disk.beyond-the-end", check_beyond_the_end, 0},
    {"disk.unknown-commands", check_unknown, 0},
    {"disk.second-drive", check_second_drive, 0},
    {"disk.page-table", check_page_table, 0},
    {"disk.directory", check_directory, 0},
    {"disk.code", check_code, 0},
};

_Noreturn void suite_main(void)
{
    master = ide_master();
    RUN_CASES(cases);
}
