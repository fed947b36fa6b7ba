/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loops to measure a machine by. Arguments: mode=NAME picks the loop, n=COUNT its repetitions, pages=COUNT the
 * working set of mode `touch`, request=BYTES what the disk's modes transfer at once, paging=off leaves paging off.
 * The checksum must be the same on every machine.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bench_disk.h"
#include "bench_mmu.h"
#include "lib/boot.h"
#include "lib/cmdline.h"
#include "lib/exit.h"
#include "lib/frames.h"
#include "lib/interrupts.h"
#include "lib/paging.h"
#include "lib/platform.h"
#include "lib/ports.h"
#include "lib/print.h"
#include "lib/string.h"
#include "lib/user.h"

enum {
    USER_VA = 0x40000000,  /* syscall: the page of its loop */
    HOLE_VA = 0x40800000,  /* fault: never mapped */
    TOUCH_VA = 0x80000000, /* touch: up to 1 GiB */
};

enum { SYSCALL_VECTOR = 0x80, TOUCH_PAGES_DEFAULT = 256, TOUCH_PAGES_MAX = 262144 };
enum { POST_ROUND_START = 1, POST_ROUND_END = 2 };

/* bench_loops.S */
uint32_t fault_loop(uint32_t count, uint32_t va);
void fault_skip(void);
void syscall_count(void);
void ring3_syscall_loop(void);

static pte_t directory[TABLE_ENTRIES] PAGE_TABLE;
static bool is_paging;

static uint32_t rotate_left(uint32_t value, unsigned bits)
{
    return value << bits | value >> (32 - bits);
}

/* Mixing as in hashes and ciphers: rounds without a branch. */
static uint32_t run_integer(uint32_t count)
{
    enum { ROUNDS = 16 };
    uint32_t a = 0x12345678;
    uint32_t b = 0x9E3779B9;
    uint32_t c = 0;

    for (uint32_t i = 0; i < count; i++) {
#pragma clang loop unroll(full)
        for (int round = 0; round < ROUNDS; round++) {
            a ^= a << 13;
            a ^= a >> 17;
            a ^= a << 5;
            b = rotate_left(b + a, 7) * 0x85EBCA6B;
            c = rotate_left(c ^ b, 13) + a;
            b ^= c >> 15;
        }
    }
    return a ^ b ^ c;
}

/* The same with a branch that follows the data: three blocks of code a round. */
static uint32_t run_branch(uint32_t count)
{
    uint32_t a = 0x12345678;
    uint32_t b = 0x9E3779B9;
    uint32_t c = 0;

    for (uint32_t i = 0; i < count; i++) {
        a ^= a << 13;
        a ^= a >> 17;
        a ^= a << 5;
        b = rotate_left(b + a, 7) * 0x85EBCA6B;
        if (b & 0x100)
            c = rotate_left(c ^ b, 13) + a;
        else
            c = c * 5 + 0xE6546B64;
        b ^= c >> 15;
    }
    return a ^ b ^ c;
}

/* The memory loop's buffer: nodes of a cache line's half, linked in an order that leaps about. */
enum { BUFFER_BYTES = 1 << 20, NODE_WORDS = 7, NODES = BUFFER_BYTES / 32 };

/* What a round does of each: chosen so that walking, copying and calling take about equal shares. */
enum { NODES_A_ROUND = 512, COPY_NODES = 256, TREE_NODES = 511 };

struct node {
    struct node *next;
    uint32_t words[NODE_WORDS];
};

_Static_assert(sizeof(struct node) * NODES == BUFFER_BYTES, "nodes fill the buffer");

static struct node nodes[NODES] __attribute__((aligned(4096)));
static struct node copies[COPY_NODES] __attribute__((aligned(4096)));

/* An odd step visits all of a power of two. */
static void link_nodes(void)
{
    enum { STEP = 12345 };

    for (uint32_t i = 0; i < NODES; i++) {
        nodes[i].next = &nodes[(i + STEP) % NODES];
        for (uint32_t word = 0; word < NODE_WORDS; word++)
            nodes[i].words[word] = i * NODE_WORDS + word;
    }
}

__attribute__((noinline)) static uint32_t visit(struct node *node, uint32_t key)
{
    node->words[0] += key;
    node->words[key % NODE_WORDS] ^= node->words[6];
    return node->words[0] + node->words[3];
}

/* Volatile, so that it stays a loop of loads and stores and becomes no string instruction. */
__attribute__((noinline)) static void copy_nodes(volatile struct node *to, const struct node *from, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t word = 0; word < NODE_WORDS; word++)
            to[i].words[word] = from[i].words[word];
}

/* Node i of an implicit binary tree; every call has a stack frame of its own. */
__attribute__((noinline)) static uint32_t sum_tree(uint32_t i)
{
    if (i >= TREE_NODES)
        return i;
    return sum_tree(2 * i + 1) * 3 + nodes[i].words[1] + sum_tree(2 * i + 2);
}

static uint32_t run_memory(uint32_t count)
{
    struct node *node = nodes;
    uint32_t check = 0;

    link_nodes();
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t step = 0; step < NODES_A_ROUND; step++, node = node->next)
            check += visit(node, check);
        copy_nodes(copies, &nodes[i * COPY_NODES % NODES], COPY_NODES);
        check = check * 31 + sum_tree(0) + copies[i % COPY_NODES].words[2];
    }
    return check;
}

static uint32_t run_store(uint32_t count)
{
    static volatile uint32_t page[PAGE_BYTES / 4] __attribute__((aligned(4096)));

    for (uint32_t i = 0; i < count; i++)
        page[i % (PAGE_BYTES / 4)] = i;
    return page[0] ^ page[PAGE_BYTES / 4 - 1];
}

static volatile uint32_t *word_of_page(uint32_t va, uint32_t page)
{
    return (volatile uint32_t *)(va + page * PAGE_BYTES);
}

/* Fresh frames, each with its number, plus the offset, in its first word. */
static void map_numbered_pages(pte_t *into, uint32_t va, uint32_t pages, uint32_t offset)
{
    for (uint32_t i = 0; i < pages; i++) {
        uint32_t frame = frame_alloc();

        *(volatile uint32_t *)frame = i + offset;
        map_page(into, va + i * PAGE_BYTES, frame, PTE_WRITABLE);
    }
}

static uint32_t sum_pages(uint32_t va, uint32_t pages)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < pages; i++)
        sum += *word_of_page(va, i);
    return sum;
}

/* The codes at the POST port let the machine see where a round starts and ends. */
static uint32_t run_touch(uint32_t count)
{
    uint32_t pages = cmdline_number("pages", TOUCH_PAGES_DEFAULT);
    uint32_t check = 0;

    if (pages > TOUCH_PAGES_MAX) {
        kprintf("argument pages=%u: expected at most %u\n", pages, (uint32_t)TOUCH_PAGES_MAX);
        guest_exit(EXIT_BAD_ARGUMENTS);
    }
    map_numbered_pages(directory, TOUCH_VA, pages, 1);
    for (uint32_t i = 0; i < count; i++) {
        outb(POST_PORT, POST_ROUND_START);
        check = check * 31 + sum_pages(TOUCH_VA, pages);
        outb(POST_PORT, POST_ROUND_END);
    }
    return check;
}

/* What CPUID answers differs between machines: the check is that it left nothing behind. */
static uint32_t run_cpuid(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t eax = 0;

        __asm__ volatile("cpuid" : "+a"(eax) : : "ebx", "ecx", "edx");
    }
    return count;
}

static uint32_t run_fault(uint32_t count)
{
    set_gate(VECTOR_PAGE_FAULT, fault_skip, 0);
    return fault_loop(count, HOLE_VA);
}

/* The loop lies within one page (bench_loops.S aligns it) and does not depend on where it runs. */
static uint32_t ring3_address(void)
{
    uint32_t loop = (uint32_t)ring3_syscall_loop;

    if (!is_paging)
        return loop;
    map_page(directory, USER_VA, loop & -(uint32_t)PAGE_BYTES, PTE_USER);
    return USER_VA + loop % PAGE_BYTES;
}

static uint32_t run_syscall(uint32_t count)
{
    enum { NO_STACK = 0 }; /* INT switches to the kernel's */

    user_init();
    set_gate(SYSCALL_VECTOR, syscall_count, 3);
    return user_call(ring3_address(), NO_STACK, count);
}

static const struct mode {
    const char *name;
    uint32_t (*run)(uint32_t count);                           /* returns the checksum */
    uint32_t count;                                            /* unless n= says otherwise */
    bool needs_paging;
    uint32_t (*run_mmu)(pte_t *directory, uint32_t count);     /* in place of run, for those of bench_mmu.c */
} modes[] = {
    {"integer", run_integer, 1000000, false, NULL},
    {"branch", run_branch, 10000000, false, NULL},
    {"memory", run_memory, 1000, false, NULL},
    {"store", run_store, 10000000, false, NULL},
    {"touch", run_touch, 100, true, NULL},
    {"cpuid", run_cpuid, 100000, false, NULL},
    {"fault", run_fault, 100000, true, NULL},
    {"syscall", run_syscall, 100000, false, NULL},
    {"disk-read", run_disk_read, 1000, false, NULL},
    {"disk-write", run_disk_write, 1000, false, NULL},
    {"balloon", run_balloon, 1000, false, NULL},
    {"cr3", NULL, 1000, true, run_cr3},
    {"ptewrite", NULL, 100000, true, run_ptewrite},
    {"ptestore", NULL, 100000, true, run_ptestore},
    {"ptebulk", NULL, 100, true, run_ptebulk},
    {"fork", NULL, 200, true, run_fork},
    {"fork-clean", NULL, 200, true, run_fork_clean},
    {"wp", NULL, 50000, true, run_wp},
};

enum { MODES = sizeof modes / sizeof *modes };

static const struct mode *find_mode(void)
{
    const char *name = cmdline_text("mode", modes[0].name);

    for (unsigned i = 0; i < MODES; i++)
        if (!strcmp(name, modes[i].name))
            return &modes[i];
    kprintf("argument mode=%s: expected one of", name);
    for (unsigned i = 0; i < MODES; i++)
        kprintf(" %s", modes[i].name);
    kprintf("\n");
    guest_exit(EXIT_BAD_ARGUMENTS);
}

static void set_up_paging(const struct mode *mode)
{
    is_paging = !cmdline_is("paging", "off");
    if (!is_paging && mode->needs_paging) {
        kprintf("mode=%s needs paging\n", mode->name);
        guest_exit(EXIT_BAD_ARGUMENTS);
    }
    if (is_paging) {
        map_identity(directory);
        paging_on(directory);
    }
}

int guest_main(const struct boot_info *info)
{
    const struct mode *mode = find_mode();
    uint32_t count = cmdline_number("n", mode->count);
    uint32_t check;

    (void)info;
    set_up_paging(mode);
    check = mode->run ? mode->run(count) : mode->run_mmu(directory, count);
    kprintf("mode=%s n=%u check=%08x\n", mode->name, count, check);
    return EXIT_OK;
}
