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
 *   opt/emu/tables       u32 address of the multiboot information; BOOT_TABLES if absent
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

/* All that the kernel is given. */
struct boot_tables {
    struct multiboot_info info;
    struct multiboot_region regions[MEMORY_REGIONS];
    struct multiboot_module modules[MAX_MODULES];
    struct module_record records[MAX_MODULES]; /* as read; holds the names that `modules` points to */
    char loader_name[4];
    char cmdline[MAX_CMDLINE];
};

_Static_assert(sizeof(struct module_record) == 64, "layout shared with the platform");
_Static_assert(sizeof(struct boot_tables) <= BOOT_TABLES_BYTES, "the platform leaves enough room for the boot tables");

/* Where the firmware may put what. */
struct room {
    u32 ram_end;
    struct span tables;
};

enum { ENTRY, SEGMENTS, IMAGE, CMDLINE, MODULES, MODULE_DATA, TABLES, BOOT_DISK, FILES };

static const char *const file_names[FILES] = {
    [ENTRY] = "opt/emu/entry",     [SEGMENTS] = "opt/emu/segments", [IMAGE] = "opt/emu/image",
    [CMDLINE] = "opt/emu/cmdline", [MODULES] = "opt/emu/modules",   [MODULE_DATA] = "opt/emu/module-data",
    [TABLES] = "opt/emu/tables",   [BOOT_DISK] = "opt/emu/boot-disk",
};

_Noreturn void start_kernel(u32 entry, u32 magic, const struct multiboot_info *info);

/* With the A20 line held low an address and the one 1 MiB above it are the same byte. */
static int is_a20_on(void)
{
    volatile u8 *low = (volatile u8 *)A20_PROBE;
    volatile u8 *high = (volatile u8 *)(HIGH_MEMORY + A20_PROBE);

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

static int is_usable(struct span span, u32 ram_end)
{
    return is_within(span, LOW_START, EBDA) || is_within(span, HIGH_MEMORY, ram_end);
}

/* Neither may wrap around. */
static int overlap(struct span one, struct span other)
{
    return one.address < other.address + other.length && other.address < one.address + one.length;
}

/* Fills the spans from an item of all their bytes; `records` has one span every `stride` bytes. */
static void load(struct fw_cfg_file data, struct fw_cfg_file records, u32 stride, const struct room *room)
{
    u32 at = 0; /* bytes of `data` that were loaded */

    for (u32 i = 0; i < records.size; i += stride) {
        struct span span;
        fw_cfg_read_at(records.key, i, &span, sizeof span);
        if (!is_usable(span, room->ram_end))
            fail("the kernel or a module lies outside usable memory");
        if (overlap(span, room->tables))
            fail("the kernel or a module lies where the multiboot information is to be");
        if (span.length > data.size - at)
            fail("the kernel or a module is shorter than announced");
        if (!fw_cfg_read_at(data.key, at, (void *)span.address, span.length))
            fail("the platform refused to load the kernel or a module");
        at += span.length;
    }
}

/* How many records a file has. */
static u32 count_records(struct fw_cfg_file file, u32 record_bytes)
{
    if (file.size % record_bytes)
        fail("a table of segments or modules has the wrong size");
    return file.size / record_bytes;
}

static u32 load_kernel(const struct fw_cfg_file files[], const struct room *room)
{
    u32 entry;

    if (files[ENTRY].size != sizeof entry || !files[SEGMENTS].size)
        fail("no kernel given");
    count_records(files[SEGMENTS], sizeof(struct span));
    load(files[IMAGE], files[SEGMENTS], sizeof(struct span), room);
    fw_cfg_read_first(files[ENTRY].key, &entry, sizeof entry);
    return entry;
}

static struct room find_room(struct fw_cfg_file file, u32 ram_end)
{
    struct room room = {ram_end, {BOOT_TABLES, BOOT_TABLES_BYTES}};

    if (file.size == sizeof room.tables.address)
        fw_cfg_read_first(file.key, &room.tables.address, sizeof room.tables.address);
    if (!is_usable(room.tables, ram_end))
        fail("the multiboot information would lie outside usable memory");
    return room;
}

static void load_modules(struct boot_tables *tables, const struct fw_cfg_file files[], const struct room *room)
{
    u32 count = count_records(files[MODULES], sizeof tables->records[0]);

    if (count > MAX_MODULES)
        fail("more than 64 modules");
    load(files[MODULE_DATA], files[MODULES], sizeof tables->records[0], room);
    if (count)
        fw_cfg_read_first(files[MODULES].key, tables->records, files[MODULES].size);
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

static _Noreturn void boot_kernel(const struct fw_cfg_file files[], u32 ram)
{
    const struct room room = find_room(files[TABLES], ram);
    struct boot_tables *tables = (struct boot_tables *)room.tables.address;
    u32 entry = load_kernel(files, &room);

    bios_data_fill();
    tables->info = (struct multiboot_info){0};
    describe_memory(tables, ram);
    name_loader(tables);
    read_command_line(tables, files[CMDLINE]);
    load_modules(tables, files, &room);
    start_kernel(entry, MULTIBOOT_LOADER_MAGIC, &tables->info);
}

_Noreturn void firmware_main(void)
{
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
    *extended_data() = (struct extended_data){.kib = (STACK_TOP - EBDA) / 1024, .ram = ram};
    if (files[BOOT_DISK].size)
        boot_from_disk(files[BOOT_DISK]);
    boot_kernel(files, ram);
}
