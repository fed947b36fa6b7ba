/* SPDX-License-Identifier: GPL-2.0-or-later */
/* System calls: arguments are checked here, and pointers go through user_copy, so that no program can have the kernel fault. */
#include "system_calls.h"

#include "../include/errors.h"
#include "../../lib/string.h"
#include "cache.h"
#include "console.h"
#include "files.h"
#include "kernel.h"
#include "process.h"
#include "schedule.h"
#include "statistics.h"
#include "swap.h"

static bool is_user_range(word at, word bytes)
{
    return at < USER_END && bytes <= USER_END - at;
}

static int to_user(word at, const void *from, size_t bytes)
{
    return is_user_range(at, bytes) && user_copy((void *)at, from, bytes) ? 0 : -EFAULT;
}

static int path_from_user(word at, char path[PATH_BYTES])
{
    for (unsigned i = 0; i < PATH_BYTES; i++) {
        if (!is_user_range(at + i, 1) || !user_copy(&path[i], (const void *)(at + i), 1))
            return -EFAULT;
        if (!path[i])
            return 0;
    }
    return -ENAMETOOLONG;
}

static struct file *file_at(word fd)
{
    return fd < FILES ? current->files[fd] : NULL;
}

/* ---- files ---- */

static intptr_t call_read_write(word fd, word buffer, word bytes, bool is_write)
{
    struct file *file = file_at(fd);
    uint32_t access = file ? file->flags & O_ACCESS : 0;

    if (!file || access == (is_write ? O_RDONLY : O_WRONLY))
        return -EBADF;
    if (!is_user_range(buffer, bytes))
        return -EFAULT;
    return is_write ? file_write(file, buffer, bytes) : file_read(file, buffer, bytes);
}

static intptr_t call_open(word path_at, word flags)
{
    char path[PATH_BYTES];
    int error = path_from_user(path_at, path);

    for (unsigned fd = 0; !error && fd < FILES; fd++)
        if (!current->files[fd]) {
            error = file_open(path, flags, &current->files[fd]);
            return error ? error : (int)fd;
        }
    return error ? error : -EMFILE;
}

static intptr_t call_close(word fd)
{
    struct file *file = file_at(fd);

    if (!file)
        return -EBADF;
    current->files[fd] = NULL;
    file_close(file);
    return 0;
}

static intptr_t call_seek(word fd, intptr_t offset, word whence)
{
    struct file *file = file_at(fd);
    int64_t base;

    if (!file || !file->inode)
        return -EBADF;
    base = whence == SEEK_SET ? 0 : whence == SEEK_CURRENT ? (int64_t)file->position : (int64_t)file->inode->size;
    if (whence > SEEK_END || base + offset < 0 || base + offset > INT32_MAX)
        return -EINVAL;
    file->position = base + offset;
    return file->position;
}

static int stat_of(const struct inode *inode, word at)
{
    struct stat stat = {.kind = KIND_CONSOLE};

    if (inode)
        stat = (struct stat){inode->number, inode->kind, inode->links, inode->blocks, inode->size};
    return to_user(at, &stat, sizeof stat);
}

static intptr_t call_stat(word path_at, word at)
{
    char path[PATH_BYTES];
    struct inode *inode;
    int error = path_from_user(path_at, path);

    if (!error)
        error = path_lookup(path, &inode);
    if (error)
        return error;
    error = stat_of(inode, at);
    file_inode_put(inode);
    return error;
}

static intptr_t call_readdir(word fd, word at)
{
    struct file *file = file_at(fd);
    struct directory_entry entry = {0};
    uint32_t offset;
    int found;

    if (!file || !file->inode)
        return -EBADF;
    if (file->inode->kind != KIND_DIRECTORY)
        return -ENOTDIR;
    offset = file->position;
    found = file->inode == &bootfs_directory ? bootfs_list(&offset, &entry) : inode_list(file->inode, &offset, &entry);
    if (found == 1 && to_user(at, &entry, sizeof entry) != 0)
        return -EFAULT;
    file->position = offset;
    return found;
}

/* The directory and the last name of a path in the program's memory; the path's buffer is the caller's. */
static int parent_from_user(word at, char path[PATH_BYTES], struct inode **directory, const char **name)
{
    int error = path_from_user(at, path);

    if (!error)
        error = path_parent(path, directory, name);
    if (!error && !(*directory)->number) {
        file_inode_put(*directory);
        error = -EROFS;
    }
    return error;
}

static intptr_t call_unlink(word at)
{
    char path[PATH_BYTES];
    struct inode *directory;
    const char *name;
    int error = parent_from_user(at, path, &directory, &name);

    if (error)
        return error;
    error = inode_unlink(directory, name);
    file_inode_put(directory);
    return error;
}

static intptr_t call_mkdir(word at)
{
    char path[PATH_BYTES];
    struct inode *directory, *made;
    const char *name;
    int error = parent_from_user(at, path, &directory, &name);

    if (error)
        return error;
    error = inode_create(directory, name, KIND_DIRECTORY, &made);
    if (!error)
        file_inode_put(made);
    file_inode_put(directory);
    return error;
}

static intptr_t call_rename(word old_at, word new_at)
{
    char old_path[PATH_BYTES], new_path[PATH_BYTES];
    struct inode *from, *to;
    const char *old_name, *new_name;
    int error = parent_from_user(old_at, old_path, &from, &old_name);

    if (error)
        return error;
    error = parent_from_user(new_at, new_path, &to, &new_name);
    if (!error) {
        error = inode_rename(from, old_name, to, new_name);
        file_inode_put(to);
    }
    file_inode_put(from);
    return error;
}

static intptr_t call_sync(struct inode *inode)
{
    int error = cache_flush(inode);
    int result = fs_is_mounted() ? fs_sync() : 0;

    return error ? error : result;
}

static intptr_t call_fsync(word fd)
{
    struct file *file = file_at(fd);

    return file && file->inode ? call_sync(file->inode) : -EBADF;
}

/* ---- memory ---- */

static intptr_t call_mmap(word bytes, word protection, word flags, word fd, word offset)
{
    word size = (bytes + PAGE_BYTES - 1) & -(word)PAGE_BYTES;
    word at = bytes && size >= bytes ? space_find_room(current->space, size) : 0;
    struct region region = {.start = at, .end = at + size, .protection = protection};
    struct file *file = flags & MAP_ANONYMOUS ? NULL : file_at(fd);
    int error;

    if (!bytes || (offset & (PAGE_BYTES - 1)) || !(flags & (MAP_SHARED | MAP_PRIVATE)))
        return -EINVAL;
    if (!at)
        return -ENOMEM;
    if (flags & MAP_ANONYMOUS && flags & MAP_SHARED)
        return -EINVAL; /* nothing here would keep such a page */
    if (!(flags & MAP_ANONYMOUS)) {
        if (!file || !file->inode || file->inode->kind != KIND_FILE)
            return -EBADF;
        if (flags & MAP_SHARED && protection & PROT_WRITE && (file->flags & O_ACCESS) != O_RDWR)
            return -EBADF;
        region.inode = file->inode;
        region.is_shared = (flags & MAP_SHARED) != 0;
        region.first_page = offset >> PAGE_SHIFT;
        region.file_bytes = size;
    }
    error = space_map(current->space, region);
    return error ? error : (intptr_t)at;
}

static intptr_t call_sbrk(intptr_t change)
{
    word old_break;
    int error = space_sbrk(current->space, change, &old_break);

    return error ? error : (intptr_t)old_break;
}

static intptr_t call_meminfo(word at)
{
    struct memory_info info = {
        .total = frames_total(),
        .free = frames_free(),
        .cached = frames_of_kind(FRAME_FILE),
        .dirty = cache_dirty_pages(),
        .anonymous = frames_of_kind(FRAME_ANONYMOUS),
        .kernel = frames_of_kind(FRAME_KERNEL),
        .ballooned = frames_of_kind(FRAME_BALLOON),
        .swap_total = swap_total(),
        .swap_used = swap_used(),
        .faults = statistics.faults,
        .cow_copies = statistics.cow_copies,
        .file_reads = statistics.file_reads,
        .file_writes = statistics.file_writes,
        .swap_reads = statistics.swap_reads,
        .swap_writes = statistics.swap_writes,
        .killed = statistics.killed,
    };

    return to_user(at, &info, sizeof info);
}

/* ---- processes ---- */

static intptr_t call_wait(int pid, word status_at)
{
    int status;
    int found;

    if (status_at && !is_user_range(status_at, sizeof status))
        return -EFAULT;
    found = process_wait(pid, &status);
    if (found > 0 && status_at && to_user(status_at, &status, sizeof status) != 0)
        return -EFAULT;
    return found;
}

static intptr_t call_exec(word path_at, word argv, struct registers *registers)
{
    char path[PATH_BYTES];
    int error = path_from_user(path_at, path);

    if (error)
        return error;
    return argv ? process_exec(path, argv, registers) : -EFAULT;
}

static intptr_t call_kill(int pid)
{
    struct process *process = process_with_pid(pid);

    if (!process)
        return -ECHILD;
    if (pid == INIT_PID)
        return -EPERM;
    process_kill(process);
    return 0;
}

static intptr_t call_poweroff(int status)
{
    call_sync(NULL);
    power_off(status);
}

static intptr_t call(struct registers *registers)
{
    word a = registers->bx, b = registers->cx, c = registers->dx, d = registers->si, e = registers->di;

    switch (registers->ax) {
    case SYS_EXIT: process_exit(a & 0x7F);
    case SYS_FORK: return process_fork(registers);
    case SYS_READ: return call_read_write(a, b, c, false);
    case SYS_WRITE: return call_read_write(a, b, c, true);
    case SYS_OPEN: return call_open(a, b);
    case SYS_CLOSE: return call_close(a);
    case SYS_WAIT: return call_wait(a, b);
    case SYS_UNLINK: return call_unlink(a);
    case SYS_EXEC: return call_exec(a, b, registers);
    case SYS_TIME: return ticks & INT32_MAX;
    case SYS_SEEK: return call_seek(a, b, c);
    case SYS_GETPID: return current->pid;
    case SYS_SYNC: return call_sync(NULL);
    case SYS_KILL: return call_kill(a);
    case SYS_RENAME: return call_rename(a, b);
    case SYS_MKDIR: return call_mkdir(a);
    case SYS_SBRK: return call_sbrk(a);
    case SYS_MMAP: return call_mmap(a, b, c, d, e);
    case SYS_MUNMAP: return is_user_range(a, b) ? space_unmap(current->space, a, a + ((b + PAGE_BYTES - 1) & -(word)PAGE_BYTES)) : -EINVAL;
    case SYS_STAT: return call_stat(a, b);
    case SYS_FSTAT: return file_at(a) ? stat_of(file_at(a)->inode, b) : -EBADF;
    case SYS_FSYNC: return call_fsync(a);
    case SYS_READDIR: return call_readdir(a, b);
    case SYS_YIELD: yield(); return 0;
    case SYS_SLEEP: sleep_ticks(a); return 0;
    case SYS_MEMINFO: return call_meminfo(a);
    case SYS_POWEROFF: return call_poweroff(a);
    case SYS_FOREGROUND: console_set_foreground(a); return 0;
    default: return -ENOSYS;
    }
}

void system_call(struct registers *registers)
{
    intptr_t answer = call(registers);

    registers->ax = answer; /* exec has cleared the registers: 0 there */
}
