/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "boot.h"

#include "cmdline.h"
#include "exit.h"
#include "frames.h"
#include "interrupts.h"
#include "multiboot.h"
#include "platform.h"
#include "print.h"
#include "segments.h"
#include "serial.h"
#include "string.h"

enum { MIB = 1 << 20 };

extern char image_end[];

static struct boot_info boot_info;

/* Loaders begin the command line with the kernel's name, which differs from one to the next: leave it out. */
static void read_command_line(const struct multiboot_info *from, struct boot_info *to)
{
    const char *text;
    size_t length;

    if (!(from->flags & MULTIBOOT_INFO_CMDLINE))
        return;
    text = (const char *)from->cmdline;
    while (*text && *text != ' ')
        text++;
    while (*text == ' ')
        text++;
    length = strlen(text);
    if (length >= ARGUMENTS_MAX)
        length = ARGUMENTS_MAX - 1;
    memcpy(to->arguments, text, length);
}

/* RAM above 4 GiB is out of a 32-bit guest's reach; the last page stays unused so that ends fit 32 bits. */
static uint32_t clamp_to_32_bits(uint64_t address)
{
    return address > 0xFFFFF000u ? 0xFFFFF000u : (uint32_t)address;
}

static void read_memory_map(const struct multiboot_info *from, struct boot_info *to)
{
    uint32_t next = from->mmap;

    while (next < from->mmap + from->mmap_bytes) {
        const struct multiboot_memory *range = (const void *)next;
        uint64_t end = range->base + range->bytes;

        if (range->type == MULTIBOOT_MEMORY_AVAILABLE && range->base <= MIB && end > MIB)
            to->usable_end = clamp_to_32_bits(end);
        next += range->entry_bytes + sizeof range->entry_bytes;
    }
}

static void read_memory(const struct multiboot_info *from, struct boot_info *to)
{
    if (from->flags & MULTIBOOT_INFO_MEMORY)
        to->usable_end = clamp_to_32_bits(MIB + (uint64_t)from->mem_upper_kib * 1024);
    if (from->flags & MULTIBOOT_INFO_MMAP)
        read_memory_map(from, to);
    to->memory_mib = (to->usable_end + (MIB - 1)) / MIB;
}

static void read_modules(const struct multiboot_info *from, struct boot_info *to)
{
    const struct multiboot_module *modules = (const void *)from->modules;

    to->used_end = (uint32_t)image_end;
    if (!(from->flags & MULTIBOOT_INFO_MODULES))
        return;
    to->module_count = from->module_count;
    for (uint32_t i = 0; i < from->module_count; i++)
        if (modules[i].end > to->used_end)
            to->used_end = modules[i].end;
}

/* Called by start.S on the first stack, with nothing set up. */
_Noreturn void boot(uint32_t magic, const struct multiboot_info *from)
{
    serial_init();
    if (magic != MULTIBOOT_BOOT_MAGIC) {
        kprintf("boot: the loader's magic is %08x, expected %08x\n", magic, (uint32_t)MULTIBOOT_BOOT_MAGIC);
        guest_exit(EXIT_BAD_BOOT);
    }
    read_command_line(from, &boot_info);
    read_memory(from, &boot_info);
    read_modules(from, &boot_info);
    cmdline_init(boot_info.arguments);
    frames_init(boot_info.used_end, boot_info.usable_end);
    segments_init();
    interrupts_init();
    guest_exit(guest_main(&boot_info));
}
