/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring 3 programs. They share nothing with the kernel but system calls, and have no variables but those on
 * their stacks and in their data pages. The pages are volatile so that the loops over them stay loops: a call of
 * memset would lead into the kernel.
 */
#include "processes.h"

#include <stddef.h>

/* A process that has lost the CPU less often has not shown that its state survives that. */
enum { PREEMPTIONS_WANTED = 3 };

enum { DATA_BYTES = PROCESS_DATA_PAGES * 4096 };

static volatile uint8_t *const bytes = (volatile uint8_t *)PROCESS_DATA_VA;
static volatile uint32_t *const words = (volatile uint32_t *)PROCESS_DATA_VA;

static uint32_t syscall(uint32_t number, uint32_t first, uint32_t second)
{
    uint32_t result;

    __asm__ volatile("int %1" : "=a"(result) : "i"(SYSCALL_VECTOR), "a"(number), "b"(first), "c"(second) : "memory");
    return result;
}

static _Noreturn void exit_with(uint32_t result)
{
    for (;;)
        syscall(SYS_EXIT, result, 0);
}

static void write(const char *text)
{
    uint32_t length = 0;

    while (text[length])
        length++;
    syscall(SYS_WRITE, (uint32_t)text, length);
}

static _Noreturn void complain(const char *text)
{
    write(text);
    exit_with(0);
}

static char hex_digit(uint32_t value)
{
    return (char)(value < 10 ? '0' + value : 'a' + value - 10);
}

static void write_hex(uint32_t value)
{
    volatile char text[9];

    for (unsigned i = 0; i < 8; i++)
        text[i] = hex_digit(value >> (28 - 4 * i) & 15);
    text[8] = '\0';
    write((const char *)text);
}

static void write_line(const char *what, uint32_t value)
{
    write(what);
    write_hex(value);
    write("\n");
}

/* The same work must give the same result, however often the timer and other processes come between. */
static uint32_t repeat_until_preempted(uint32_t (*work)(void))
{
    uint32_t result = work();
    uint32_t ticks = syscall(SYS_TICKS, 0, 0);

    while (syscall(SYS_PREEMPTIONS, 0, 0) < PREEMPTIONS_WANTED) {
        if (work() != result)
            complain("the result changed\n");
        if (syscall(SYS_TICKS, 0, 0) < ticks)
            complain("time went backwards\n");
    }
    return result;
}

static void introduce(const char *name)
{
    syscall(SYS_YIELD, 0, 0);
    write(name);
    write_line(": my pid is ", syscall(SYS_GETPID, 0, 0));
}

/* The sieve of Eratosthenes over the data pages; returns the number of primes. */
static uint32_t count_primes(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < DATA_BYTES; i++)
        bytes[i] = 1;
    for (uint32_t i = 2; i < DATA_BYTES; i++) {
        if (!bytes[i])
            continue;
        count++;
        for (uint32_t j = 2 * i; j < DATA_BYTES; j += i)
            bytes[j] = 0;
    }
    return count;
}

void program_a(void)
{
    uint32_t count;

    introduce("sieve");
    count = repeat_until_preempted(count_primes);
    write_line("primes below 65536: ", count);
    exit_with(count);
}

enum { SORT_WORDS = 4096 };

static void fill_with_noise(void)
{
    uint32_t state = 12345;

    for (uint32_t i = 0; i < SORT_WORDS; i++) {
        state = state * 1664525 + 1013904223;
        words[i] = state;
    }
}

static void shell_sort(void)
{
    for (uint32_t gap = SORT_WORDS / 2; gap; gap /= 2)
        for (uint32_t i = gap; i < SORT_WORDS; i++) {
            uint32_t word = words[i];
            uint32_t j = i;

            for (; j >= gap && words[j - gap] > word; j -= gap)
                words[j] = words[j - gap];
            words[j] = word;
        }
}

/* The order goes into the sum; 0 if the words are not in order. */
static uint32_t sum_if_sorted(void)
{
    uint32_t sum = words[0];

    for (uint32_t i = 1; i < SORT_WORDS; i++) {
        if (words[i - 1] > words[i])
            return 0;
        sum = sum * 31 + words[i];
    }
    return sum;
}

static uint32_t sort_noise(void)
{
    fill_with_noise();
    shell_sort();
    return sum_if_sorted();
}

void program_b(void)
{
    uint32_t sum;

    introduce("sort");
    sum = repeat_until_preempted(sort_noise);
    write_line("checksum of 4096 sorted words: ", sum);
    exit_with(sum);
}

/* CRC-32 with the reflected polynomial of IEEE 802.3, a bit at a time, over bytes that depend on their place. */
static uint32_t crc_of_pages(void)
{
    uint32_t crc = 0xFFFFFFFFu;

    for (uint32_t i = 0; i < DATA_BYTES; i++)
        bytes[i] = (uint8_t)(i ^ i >> 8);
    for (uint32_t i = 0; i < DATA_BYTES; i++) {
        crc ^= bytes[i];
        for (unsigned bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
    }
    return ~crc;
}

void program_c(void)
{
    uint32_t crc;

    introduce("crc");
    crc = repeat_until_preempted(crc_of_pages);
    write_line("crc-32 of 16 pages: ", crc);
    exit_with(crc);
}

/* Misbehaves after honest work: neither the kernel nor the neighbours may notice. */
void program_d(void)
{
    volatile uint32_t *const kernel = (volatile uint32_t *)0x100000;

    introduce("intruder");
    if (syscall(SYS_WRITE, (uint32_t)kernel, 4) != SYS_BAD_ADDRESS)
        complain("the kernel wrote its own memory out for me\n");
    words[0] = crc_of_pages();
    write("now I touch the kernel\n");
    *kernel = words[0];
    complain("the kernel let me\n");
}
