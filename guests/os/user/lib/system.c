/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system.h"

result system_call(unsigned number, intptr_t a, intptr_t b, intptr_t c, intptr_t d, intptr_t e)
{
    result answer;

    __asm__ volatile("int %[vector]"
                     : "=a"(answer)
                     : "a"((intptr_t)number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [vector] "i"(SYSTEM_CALL_VECTOR)
                     : "memory", "cc");
    return answer;
}

static result call(unsigned number, intptr_t a, intptr_t b, intptr_t c)
{
    return system_call(number, a, b, c, 0, 0);
}

void exit(int status)
{
    print_flush();
    call(SYS_EXIT, status, 0, 0);
    __builtin_unreachable();
}

int fork(void)
{
    print_flush(); /* or both would print it */
    return call(SYS_FORK, 0, 0, 0);
}

result read(int fd, void *buffer, size_t bytes)
{
    return call(SYS_READ, fd, (intptr_t)buffer, bytes);
}

result write(int fd, const void *buffer, size_t bytes)
{
    return call(SYS_WRITE, fd, (intptr_t)buffer, bytes);
}

int open(const char *path, int flags)
{
    return call(SYS_OPEN, (intptr_t)path, flags, 0);
}

int close(int fd)
{
    return call(SYS_CLOSE, fd, 0, 0);
}

int wait(int pid, int *status)
{
    return call(SYS_WAIT, pid, (intptr_t)status, 0);
}

int unlink(const char *path)
{
    return call(SYS_UNLINK, (intptr_t)path, 0, 0);
}

int exec(const char *path, char *const argv[])
{
    print_flush();
    return call(SYS_EXEC, (intptr_t)path, (intptr_t)argv, 0);
}

uint32_t now(void)
{
    return call(SYS_TIME, 0, 0, 0);
}

result seek(int fd, intptr_t offset, int whence)
{
    return call(SYS_SEEK, fd, offset, whence);
}

int getpid(void)
{
    return call(SYS_GETPID, 0, 0, 0);
}

int sync(void)
{
    return call(SYS_SYNC, 0, 0, 0);
}

int fsync(int fd)
{
    return call(SYS_FSYNC, fd, 0, 0);
}

int kill(int pid)
{
    return call(SYS_KILL, pid, 0, 0);
}

void foreground(int pid)
{
    call(SYS_FOREGROUND, pid, 0, 0);
}

int rename(const char *from, const char *to)
{
    return call(SYS_RENAME, (intptr_t)from, (intptr_t)to, 0);
}

int mkdir(const char *path)
{
    return call(SYS_MKDIR, (intptr_t)path, 0, 0);
}

static void *address(result answer)
{
    return answer < 0 && answer > -4096 ? NULL : (void *)answer;
}

void *sbrk(intptr_t change)
{
    return address(call(SYS_SBRK, change, 0, 0));
}

void *mmap(size_t bytes, int protection, int flags, int fd, size_t offset)
{
    return address(system_call(SYS_MMAP, bytes, protection, flags, fd, offset));
}

int munmap(void *at, size_t bytes)
{
    return call(SYS_MUNMAP, (intptr_t)at, bytes, 0);
}

int stat(const char *path, struct stat *into)
{
    return call(SYS_STAT, (intptr_t)path, (intptr_t)into, 0);
}

int fstat(int fd, struct stat *into)
{
    return call(SYS_FSTAT, fd, (intptr_t)into, 0);
}

int readdir(int fd, struct directory_entry *into)
{
    return call(SYS_READDIR, fd, (intptr_t)into, 0);
}

void yield(void)
{
    call(SYS_YIELD, 0, 0, 0);
}

void sleep(uint32_t ticks)
{
    print_flush();
    call(SYS_SLEEP, ticks, 0, 0);
}

int meminfo(struct memory_info *into)
{
    return call(SYS_MEMINFO, (intptr_t)into, 0, 0);
}

void poweroff(int status)
{
    print_flush();
    call(SYS_POWEROFF, status, 0, 0);
    __builtin_unreachable();
}

bool read_all(int fd, void *buffer, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        result got = read(fd, (char *)buffer + done, bytes - done);

        if (got <= 0)
            return false;
        done += got;
    }
    return true;
}

bool write_all(int fd, const void *buffer, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        result put = write(fd, (const char *)buffer + done, bytes - done);

        if (put <= 0)
            return false;
        done += put;
    }
    return true;
}
