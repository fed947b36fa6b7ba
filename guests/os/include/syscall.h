/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel and its programs agree on: INT 0x80 with the number in EAX and arguments in EBX, ECX, EDX, ESI, EDI
 * (RAX, RBX, ... in 64-bit code); the answer is in EAX, a negative error (errors.h) if the call failed.
 */
#ifndef SYSCALL_H
#define SYSCALL_H

#include <stdint.h>

#define SYSTEM_CALL_VECTOR 0x80

#define SYS_EXIT 1      /* status */
#define SYS_FORK 2      /* -> pid of the child, 0 in the child */
#define SYS_READ 3      /* fd, buffer, bytes -> bytes, 0 at the end */
#define SYS_WRITE 4     /* fd, buffer, bytes -> bytes */
#define SYS_OPEN 5      /* path, flags -> fd */
#define SYS_CLOSE 6     /* fd */
#define SYS_WAIT 7      /* pid or -1, int *status -> pid: status is 0 to 127 of exit, 128 + signal if killed */
#define SYS_UNLINK 10   /* path */
#define SYS_EXEC 11     /* path, argv ending in null */
#define SYS_TIME 13     /* -> ticks since the start */
#define SYS_SEEK 19     /* fd, offset, whence -> new offset */
#define SYS_GETPID 20
#define SYS_SYNC 36
#define SYS_KILL 37     /* pid */
#define SYS_RENAME 38   /* old path, new path */
#define SYS_MKDIR 39    /* path */
#define SYS_SBRK 45     /* change in bytes -> old break */
#define SYS_MMAP 90     /* bytes, PROT_*, MAP_*, fd, offset (all five registers) -> address */
#define SYS_MUNMAP 91   /* address, bytes */
#define SYS_STAT 106    /* path, struct stat * */
#define SYS_FSTAT 108   /* fd, struct stat * */
#define SYS_FSYNC 118   /* fd */
#define SYS_READDIR 141 /* fd, struct directory_entry * -> 1, 0 at the end */
#define SYS_YIELD 158
#define SYS_SLEEP 162   /* ticks */
#define SYS_MEMINFO 200 /* struct memory_info * */
#define SYS_POWEROFF 201 /* status, for the debug-exit port */
#define SYS_FOREGROUND 202 /* pid that control C ends, 0: none */

#define TICKS_PER_SECOND 100

#define O_RDONLY 0
#define O_WRONLY 1
#define O_RDWR 2
#define O_ACCESS 3 /* mask of the above */
#define O_CREATE 0x40
#define O_TRUNCATE 0x200
#define O_APPEND 0x400

#define PROT_READ 1
#define PROT_WRITE 2
#define PROT_EXEC 4
#define MAP_SHARED 1
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 0x20

#define SEEK_SET 0
#define SEEK_CURRENT 1
#define SEEK_END 2

#define KILLED 128          /* status of a killed process: this, and a signal */
#define SIGNAL_KILL 9
#define SIGNAL_FAULT 11

#define NAME_BYTES 60       /* of a file's name, with its final zero */
#define PATH_BYTES 256

enum file_kind { KIND_NONE, KIND_FILE, KIND_DIRECTORY, KIND_CONSOLE };

struct stat {
    uint32_t inode;
    uint32_t kind;          /* enum file_kind */
    uint32_t links;
    uint32_t blocks;        /* of 4096 bytes, those that hold data */
    uint64_t size;          /* bytes */
};

struct directory_entry {
    uint32_t inode;
    char name[NAME_BYTES];
};

struct memory_info {        /* pages of 4096 bytes, and counts since the start */
    uint32_t total, free;
    uint32_t cached;        /* pages of files */
    uint32_t dirty;         /* of them, not yet on the disk */
    uint32_t anonymous;
    uint32_t kernel;        /* tables, stacks, the kernel itself */
    uint32_t ballooned;
    uint32_t swap_total, swap_used;
    uint32_t faults;        /* page faults served */
    uint32_t cow_copies;
    uint32_t file_reads, file_writes;   /* pages from and to files */
    uint32_t swap_reads, swap_writes;   /* pages */
    uint32_t killed;        /* processes, for want of memory */
};

#endif
