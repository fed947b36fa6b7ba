/* SPDX-License-Identifier: GPL-2.0-or-later */
/* System calls as functions, and the small library of all programs. */
#ifndef SYSTEM_H
#define SYSTEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../../lib/string.h"
#include "../../include/errors.h"
#include "../../include/syscall.h"

typedef intptr_t result; /* of a call: negative errors */

result system_call(unsigned number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e);

_Noreturn void exit(int status);
int fork(void);
result read(int fd, void *buffer, size_t bytes);
result write(int fd, const void *buffer, size_t bytes);
int open(const char *path, int flags);
int close(int fd);
int wait(int pid, int *status);
int unlink(const char *path);
int exec(const char *path, char *const argv[]);
uint32_t now(void); /* ticks since the start */
result seek(int fd, intptr_t offset, int whence);
int getpid(void);
int sync(void);
int fsync(int fd);
int kill(int pid);
void foreground(int pid); /* the process that control C ends; 0: none */
int rename(const char *from, const char *to);
int mkdir(const char *path);
void *sbrk(intptr_t change); /* null: no memory */
void *mmap(size_t bytes, int protection, int flags, int fd, size_t offset); /* null: an error */
int munmap(void *at, size_t bytes);
int stat(const char *path, struct stat *into);
int fstat(int fd, struct stat *into);
int readdir(int fd, struct directory_entry *into);
void yield(void);
void sleep(uint32_t ticks);
int meminfo(struct memory_info *into);
_Noreturn void poweroff(int status);

/* Whole buffers: true if all of it was done. */
bool read_all(int fd, void *buffer, size_t bytes);
bool write_all(int fd, const void *buffer, size_t bytes);

/* ---- print.c ---- */

/* %s %d %u %x %c %%, %U for a uint64_t, a width, 0 to pad with zeros; goes out at the end of each line. */
void print(const char *format, ...);
void print_flush(void);

/* Prints what went wrong, and ends the program with status 1. */
_Noreturn void die(const char *format, ...);

/* ---- memory.c ---- */

void *allocate(size_t bytes); /* zeroed; ends the program when there is none */
void *try_allocate(size_t bytes);
void release(void *block);

/* ---- arguments.c ---- */

struct option {
    const char *key;
    uint32_t *number;  /* decimal, with k or m for 1024 and 1024 * 1024 */
    const char **text; /* or this */
};

/* Words KEY=VALUE; ends the program with the list of known keys for any other. */
void parse_arguments(int argc, char **argv, const struct option options[], unsigned count);
bool parse_number(const char *text, uint32_t *number);

/* ---- random.c ---- */

struct random {
    uint64_t state;
};

void random_seed(struct random *random, uint64_t seed);
uint32_t random_next(struct random *random);
uint32_t random_below(struct random *random, uint32_t bound);

/* Ranks 0 to count - 1, rank k as often as 1 / (k + 1): Zipf's law, by integers. */
struct zipf {
    uint32_t count;
    uint64_t *sums; /* of 2^20 / (k + 1) */
};

void zipf_init(struct zipf *zipf, uint32_t count);
uint32_t zipf_next(const struct zipf *zipf, struct random *random);

/* ---- second.c: what workloads report by ---- */

struct seconds {
    uint32_t start;  /* tick */
    uint32_t passed; /* seconds that were reported */
    uint32_t wanted;
};

void seconds_start(struct seconds *at, uint32_t seconds);

/* Whether another second has ended since the last call that said so; `passed` is its number. */
bool second_has_ended(struct seconds *at);
bool seconds_are_over(const struct seconds *at);

/* A number that depends on all three. */
uint32_t mix(uint32_t a, uint32_t b, uint32_t c);

#endif
