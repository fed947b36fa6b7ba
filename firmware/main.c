/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads a multiboot kernel that the platform hands over through fw_cfg, and starts it; or boots from a disk (see bios.c).
 *
 *   opt/emu/entry        u32 address of the kernel's first instruction
 *   opt/emu/segments     {u32 address, u32 length}[]: where the kernel's bytes go
 *   opt/emu/image        the bytes of all segments, one after another
 *   opt/emu/cmdline      NUL-terminated kernel command line; may be absent
 *   opt/emu/modules      {u32 address, u32 length, char name[56]}[]: where the modules go; may be absent
 *   opt/emu/module-data  the bytes of all modules, one after another
 *   opt/emu/boot-disk    a disk image; then there is no kernel
 *
 * Nothing here is paged, and all variables are on the stack or in the boot tables (see layout.h).
 */
#include "bios.h"
#include "console.h"
#include "fw_cfg.h"
#include "io.h"
#include "layout.h"
#include "memory.h"
#include "multiboot.h"

#define PORT_PIC1_MASK 0x21
#define PORT_PIC2_MASK 0xa1

#define MAX_SEGMENTS 64      /* kernels have fewer than ten */
#define MAX_MODULES 64       /* 64 records and names still leave room in the boot tables for the command line */
#define MAX_CMDLINE 4096     /* Linux takes 2048 */
#define MODULE_NAME_BYTES 56 /* makes a record 64 bytes */

/* A span of memory that the platform wants filled; modules continue it with their name. */
struct span {
    u32 address; /* physical */
    u32 length;  /* bytes */
};

struct module_record {
    struct span span;
    char name[MODULE_NAME_BYTES]; /* NUL-terminated */
};

/* All that the kernel is given, at BOOT_TABLES. */
struct boot_tables {
    struct multiboot_info info;
    struct multiboot_region regions[MEMORY_REGIONS];
    struct multiboot_module modules[MAX_MODULES];
    struct module_record records[MAX_MODULES]; /* as read; holds the names that `modules` points to */
    char loader_name[4];
    char cmdline[MAX_CMDLINE];
};

_Static_assert(sizeof(struct module_record) == 64, "layout shared with the platform");
_Static_assert(BOOT_TABLES + sizeof(struct boot_tables) <= LOW_END, "the boot tables fit below the kernel");

enum { ENTRY, SEGMENTS, IMAGE, CMDLINE, MODULES, MODULE_DATA, BOOT_DISK, FILES };

static const char *const file_names[FILES] = {
    [ENTRY] = "opt/emu/entry",     [SEGMENTS] = "opt/emu/segments", [IMAGE] = "opt/emu/image",
    [CMDLINE] = "opt/emu/cmdline", [MODULES] = "opt/emu/modules",   [MODULE_DATA] = "opt/emu/module-data",
    [BOOT_DISK] = "opt/emu/boot-disk",
};

_Noreturn void start_kernel(u32 entry, u32 magic, const struct multiboot_info *info);

/* With the A20 line held low an address and the one 1 MiB above it are the same byte. */
static int is_a20_on(void)
{
    volatile u8 *low = (volatile u8 *)LOW_START;
    volatile u8 *high = (volatile u8 *)(HIGH_MEMORY + LOW_START);

    *low = 0;
    *high = 1;
    if (*low)
        return 0;
    *high = 0; /* kernels and users expect fresh memory to be zero */
    return 1;
}

static u32 ram_end(void)
{
    u64 bytes = fw_cfg_ram_bytes();

    return bytes > LOW_RAM_LIMIT ? LOW_RAM_LIMIT : (u32)bytes;
}

static int is_within(struct span span, u32 start, u32 end)
{
    return span.address >= start && span.address <= end && span.length <= end - span.address;
}

/* Fills the spans from an item of all their bytes; `stride` is the distance between two spans, in bytes. */
static void load(struct fw_cfg_file data, const void *spans, u32 stride, u32 count, u32 ram)
{
    u32 left = data.size;

    fw_cfg_read_first(data.key, 0, 0);
    for (u32 i = 0; i < count; i++) {
        struct span span = *(const struct span *)((const u8 *)spans + i * stride);
        if (!is_within(span, LOW_END, EBDA) && !is_within(span, HIGH_MEMORY, ram))
            fail("the kernel or a module lies outside usable memory");
        if (span.length > left)
            fail("the kernel or a module is shorter than announced");
        if (!fw_cfg_read_next((void *)span.address, span.length))
            fail("the platform refused to load the kernel or a module");
        left -= span.length;
    }
}

/* Reads a whole file of records into `table` and returns how many there are. */
static u32 read_records(struct fw_cfg_file file, void *table, u32 record_bytes, u32 max_records)
{
    if (file.size % record_bytes || file.size / record_bytes > max_records)
        fail("a table of segments or modules has the wrong size");
    if (file.size)
        fw_cfg_read_first(file.key, table, file.size);
    return file.size / record_bytes;
}

static u32 load_kernel(const struct fw_cfg_file files[], u32 ram)
{
    struct span segments[MAX_SEGMENTS];
    u32 entry;

    if (files[ENTRY].size != sizeof entry || !files[SEGMENTS].size)
        fail("no kernel given");
    load(files[IMAGE], segments, sizeof segments[0],
         read_records(files[SEGMENTS], segments, sizeof segments[0], MAX_SEGMENTS), ram);
    fw_cfg_read_first(files[ENTRY].key, &entry, sizeof entry);
    return entry;
}

static void load_modules(struct boot_tables *tables, const struct fw_cfg_file files[], u32 ram)
{
    u32 count = read_records(files[MODULES], tables->records, sizeof tables->records[0], MAX_MODULES);

    load(files[MODULE_DATA], tables->records, sizeof tables->records[0], count, ram);
    for (u32 i = 0; i < count; i++) {
        struct module_record *record = &tables->records[i];
        record->name[MODULE_NAME_BYTES - 1] = 0;
        tables->modules[i] = (struct multiboot_module){
            .start = record->span.address,
            .end = record->span.address + record->span.length,
            .string = (u32)record->name,
        };
    }
    tables->info.flags |= MULTIBOOT_HAS_MODULES;
    tables->info.mods_count = count;
    tables->info.mods_addr = (u32)tables->modules;
}

static void read_command_line(struct boot_tables *tables, struct fw_cfg_file file)
{
    if (file.size > MAX_CMDLINE)
        fail("the command line is longer than 4095 characters");
    if (file.size)
        fw_cfg_read_first(file.key, tables->cmdline, file.size);
    tables->cmdline[file.size ? file.size - 1 : 0] = 0;
    tables->info.flags |= MULTIBOOT_HAS_COMMAND_LINE;
    tables->info.cmdline = (u32)tables->cmdline;
}

static void describe_memory(struct boot_tables *tables, u32 ram)
{
    describe_regions(tables->regions, ram);
    tables->info.flags |= MULTIBOOT_HAS_MEMORY | MULTIBOOT_HAS_MEMORY_MAP;
    tables->info.mem_lower = EBDA / 1024;
    tables->info.mem_upper = (ram - HIGH_MEMORY) / 1024;
    tables->info.mmap_length = sizeof tables->regions;
    tables->info.mmap_addr = (u32)tables->regions;
}

static void name_loader(struct boot_tables *tables)
{
    static const char name[sizeof tables->loader_name] = "emu";

    for (u32 i = 0; i < sizeof name; i++)
        tables->loader_name[i] = name[i];
    tables->info.flags |= MULTIBOOT_HAS_LOADER_NAME;
    tables->info.boot_loader_name = (u32)tables->loader_name;
}

_Noreturn void firmware_main(void)
{
    struct boot_tables *tables = (struct boot_tables *)BOOT_TABLES;
    struct fw_cfg_file files[FILES];

    out8(PORT_PIC1_MASK, 0xff);
    out8(PORT_PIC2_MASK, 0xff);
    if (!fw_cfg_is_present())
        fail("the platform has no fw_cfg device");
    u32 ram = ram_end();
    if (ram <= HIGH_MEMORY)
        fail("the machine needs more than 1 MiB of memory");
    if (!is_a20_on())
        fail("address line A20 is stuck");

    fw_cfg_find(file_names, files, FILES);
    if (files[BOOT_DISK].size)
        boot_from_disk(files[BOOT_DISK], ram);
    u32 entry = load_kernel(files, ram);
    tables->info = (struct multiboot_info){0};
    describe_memory(tables, ram);
    name_loader(tables);
    read_command_line(tables, files[CMDLINE]);
    load_modules(tables, files, ram);
    start_kernel(entry, MULTIBOOT_LOADER_MAGIC, &tables->info);
}
