/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's start, its arguments, its end. */
#include "../../lib/multiboot.h"
#include "../../lib/platform.h"
#include "../../lib/ports.h"
#include "../../lib/serial.h"
#include "../../lib/string.h"
#include "balloon_thread.h"
#include "console.h"
#include "disk.h"
#include "files.h"
#include "frames.h"
#include "inode.h"
#include "kernel.h"
#include "pagetable.h"
#include "process.h"
#include "processor.h"
#include "reclaim.h"
#include "schedule.h"
#include "swap.h"
#include "tests.h"
#include "traps.h"

enum { COMMAND_BYTES = 512, UNROLLED = 16, KIB_PER_PAGE = PAGE_BYTES / 1024 };

#if PAGING_LEVELS == 2
const char *const system_name = "os-i386";
#elif PAGING_LEVELS == 3
const char *const system_name = "os-pae";
#else
const char *const system_name = "os-x86_64";
#endif

extern const uint8_t kernel_end[];
static char command_line[COMMAND_BYTES];

/* ---- small things that everybody uses ---- */

void strlcpy(char *to, const char *from, size_t bytes)
{
    while (bytes > 1 && *from) {
        *to++ = *from++;
        bytes--;
    }
    *to = 0;
}

void copy_page(void *to, const void *from)
{
    volatile word *target = to; /* so that it stays a loop of words: string instructions are what emulators do worst */
    const volatile word *source = from;

#pragma clang loop unroll_count(UNROLLED)
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(word); i++)
        target[i] = source[i];
}

void zero_page(void *at)
{
    volatile word *words = at;

#pragma clang loop unroll_count(UNROLLED)
    for (unsigned i = 0; i < PAGE_BYTES / sizeof(word); i++)
        words[i] = 0;
}

void power_off(int status)
{
    outb(EXIT_PORT, status);
    for (;;)
        __asm__ volatile("cli\n\thlt");
}

/* ---- the command line: words, KEY=VALUE, KEY="several words" ---- */

static const char *copy_value(const char *from)
{
    static char value[COMMAND_BYTES];
    char end = *from == '"' ? '"' : ' ';
    unsigned length = 0;

    if (*from == '"')
        from++;
    while (*from && *from != end)
        value[length++] = *from++;
    value[length] = 0;
    return value;
}

static const char *skip_word(const char *at)
{
    bool is_quoted = false;

    for (; *at && (is_quoted || *at != ' '); at++)
        is_quoted ^= *at == '"';
    return at;
}

const char *argument(const char *key)
{
    size_t length = strlen(key);

    for (const char *at = command_line; *at; at = skip_word(at)) {
        while (*at == ' ')
            at++;
        if (strncmp(at, key, length) != 0)
            continue;
        if (at[length] == '=')
            return copy_value(at + length + 1);
        if (!at[length] || at[length] == ' ')
            return copy_value("");
    }
    return NULL;
}

/* ---- the start ---- */

static void drop_identity_map(void)
{
    for (unsigned i = 0; PAGING_LEVELS == 2 && i < KERNEL_BASE >> 22; i++)
        kernel_root[i] = 0;
    if (PAGING_LEVELS != 2)
        kernel_root[0] = 0;
    write_cr3(physical(kernel_root));
}

static void mount_disk(void)
{
    struct extent files;

    if (!disk_init()) {
        announce("disk: none\n");
        return;
    }
    swap_init();
    if (!disk_partition(PARTITION_FILES, &files))
        announce("disk: %u blocks, no file system\n", disk_blocks());
    else if (fs_mount(files) != 0)
        announce("disk: %u blocks, the file system cannot be mounted\n", disk_blocks());
    else
        announce("disk: %u blocks, %u of files, %u of swap\n", disk_blocks(), files.count, swap_total());
}

void kernel_main(const struct multiboot_info *info_at)
{
    const struct multiboot_info *info = direct((paddr)info_at);

    if (info->flags & MULTIBOOT_INFO_CMDLINE)
        strlcpy(command_line, direct(info->cmdline), COMMAND_BYTES);
    serial_init();
    frames_init(info, physical(kernel_end));
    drop_identity_map();
    traps_init();
    announce("%s: %u MB, %u frames free\n", system_name, (frame_count * KIB_PER_PAGE + 1023) / 1024, frames_free());
    bootfs_init();
    schedule_init();
    console_init();
    mount_disk();
    reclaim_init();
    if (argument("test"))
        power_off(run_tests());
    balloon_start();
    process_start_init();
    for (;;)
        sleep_on(kernel_main);
}
