/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The shell on the console: small commands of its own, and programs of /bin, with & in the background and ; one after the other. */
#include "lib/system.h"

enum { LINE_BYTES = 256, WORDS = 24, CHUNK_BYTES = 4096 };

static char chunk[CHUNK_BYTES];

static void complain(const char *what, result error)
{
    static const struct {
        int number;
        const char *text;
    } texts[] = {
        {ENOENT, "no such file"}, {EEXIST, "exists already"}, {ENOTDIR, "not a directory"}, {EISDIR, "a directory"},
        {ENOTEMPTY, "not empty"}, {ENOSPC, "the disk is full"}, {EROFS, "read-only"}, {EIO, "the disk failed"}, {ENOEXEC, "not a program"},
        {ENOMEM, "out of memory"}, {EAGAIN, "too many processes"}, {EMFILE, "too many files"}, {ENAMETOOLONG, "name too long"},
    };

    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].number == -error) {
            print("%s: %s\n", what, texts[i].text);
            return;
        }
    print("%s: error %d\n", what, (int)-error);
}

static int opened(const char *path, int flags)
{
    int fd = open(path, flags);

    if (fd < 0)
        complain(path, fd);
    return fd;
}

static void list(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "/";
    struct directory_entry entry;
    int fd = opened(path, O_RDONLY);

    while (fd >= 0 && readdir(fd, &entry) == 1) {
        char name[PATH_BYTES];
        struct stat stat_of = {0};
        size_t length = strlen(path) < PATH_BYTES - NAME_BYTES - 1 ? strlen(path) : 0;

        memcpy(name, path, length);
        name[length] = '/';
        memcpy(name + length + 1, entry.name, NAME_BYTES);
        stat(name, &stat_of);
        print("%10U  %s%s\n", stat_of.size, entry.name, stat_of.kind == KIND_DIRECTORY ? "/" : "");
    }
    if (fd >= 0)
        close(fd);
}

static void cat(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int fd = opened(argv[i], O_RDONLY);
        result got = 0;

        print_flush();
        while (fd >= 0 && (got = read(fd, chunk, sizeof chunk)) > 0)
            write_all(1, chunk, got);
        if (got < 0)
            complain(argv[i], got);
        if (fd >= 0)
            close(fd);
    }
}

static void copy(int argc, char **argv)
{
    int from = argc == 3 ? opened(argv[1], O_RDONLY) : -1;
    int to = from >= 0 ? opened(argv[2], O_WRONLY | O_CREATE | O_TRUNCATE) : -1;
    result got = 0;

    if (argc != 3)
        print("cp FROM TO\n");
    while (to >= 0 && (got = read(from, chunk, sizeof chunk)) > 0)
        if (!write_all(to, chunk, got)) {
            print("%s: cannot be written\n", argv[2]);
            break;
        }
    if (got < 0)
        complain(argv[1], got);
    close(from);
    close(to);
}

static void sum(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int fd = opened(argv[i], O_RDONLY);
        uint32_t total = 0, bytes = 0;
        result got = 0;

        while (fd >= 0 && (got = read(fd, chunk, sizeof chunk)) > 0)
            for (result at = 0; at < got; at++, bytes++)
                total = (total << 5 | total >> 27) ^ (uint8_t)chunk[at];
        if (got < 0)
            complain(argv[i], got);
        if (fd >= 0) {
            print("%08x %10u %s\n", total, bytes, argv[i]);
            close(fd);
        }
    }
}

static void one_path(int argc, char **argv, int (*call)(const char *))
{
    for (int i = 1; i < argc; i++) {
        int error = call(argv[i]);

        if (error)
            complain(argv[i], error);
    }
}

static void move(int argc, char **argv)
{
    int error = argc == 3 ? rename(argv[1], argv[2]) : 0;

    if (argc != 3)
        print("mv FROM TO\n");
    else if (error)
        complain(argv[1], error);
}

/* echo WORDS [> FILE] */
static void echo(int argc, char **argv)
{
    int last = argc > 2 && strcmp(argv[argc - 2], ">") == 0 ? argc - 2 : argc;
    int fd = last < argc ? opened(argv[argc - 1], O_WRONLY | O_CREATE | O_TRUNCATE) : 1;

    print_flush();
    for (int i = 1; fd >= 0 && i < last; i++) {
        write_all(fd, argv[i], strlen(argv[i]));
        write_all(fd, i + 1 < last ? " " : "\n", 1);
    }
    if (fd > 1)
        close(fd);
}

static void memory(void)
{
    struct memory_info info;

    meminfo(&info);
    print("pages: total %u free %u cached %u dirty %u anonymous %u kernel %u ballooned %u\n", info.total, info.free, info.cached, info.dirty,
          info.anonymous, info.kernel, info.ballooned);
    print("swap: total %u used %u read %u written %u\n", info.swap_total, info.swap_used, info.swap_reads, info.swap_writes);
    print("faults %u copies %u file reads %u writes %u killed %u\n", info.faults, info.cow_copies, info.file_reads, info.file_writes, info.killed);
}

static void kill_all(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        uint32_t pid;
        int error = parse_number(argv[i], &pid) ? kill(pid) : -ECHILD;

        if (error)
            print("%s: no such process\n", argv[i]);
    }
}

static bool run_own(int argc, char **argv)
{
    const char *name = argv[0];

    if (strcmp(name, "ls") == 0)
        list(argc, argv);
    else if (strcmp(name, "cat") == 0)
        cat(argc, argv);
    else if (strcmp(name, "cp") == 0)
        copy(argc, argv);
    else if (strcmp(name, "sum") == 0)
        sum(argc, argv);
    else if (strcmp(name, "rm") == 0)
        one_path(argc, argv, unlink);
    else if (strcmp(name, "mkdir") == 0)
        one_path(argc, argv, mkdir);
    else if (strcmp(name, "mv") == 0)
        move(argc, argv);
    else if (strcmp(name, "echo") == 0)
        echo(argc, argv);
    else if (strcmp(name, "sync") == 0)
        sync();
    else if (strcmp(name, "mem") == 0)
        memory();
    else if (strcmp(name, "kill") == 0)
        kill_all(argc, argv);
    else if (strcmp(name, "exit") == 0)
        poweroff(0);
    else if (strcmp(name, "help") == 0)
        print("ls [DIR], cat, cp, mv, rm, mkdir, echo WORDS [> FILE], sum, sync, mem, kill PID, exit; programs: ls /bin\n");
    else
        return false;
    return true;
}

static void run_program(char **argv, bool in_background)
{
    char path[PATH_BYTES] = "/bin/";
    int pid;

    if (strlen(argv[0]) > PATH_BYTES - 6) {
        print("%s: name too long\n", argv[0]);
        return;
    }
    memcpy(path + (argv[0][0] == '/' ? 0 : 5), argv[0], strlen(argv[0]) + 1);
    pid = fork();
    if (pid == 0) {
        int error = exec(path, argv);

        complain(argv[0], error);
        exit(1);
    }
    if (pid < 0) {
        complain(argv[0], pid);
    } else if (in_background) {
        print("[%d]\n", pid);
    } else {
        int status = 0;

        foreground(pid);
        wait(pid, &status);
        foreground(0);
        if (status)
            print("%s: status %d\n", argv[0], status);
    }
}

/* One command: words up to the end, ; or &. Returns what follows it. */
static char *run_command(char *at)
{
    char *argv[WORDS + 1];
    int argc = 0;
    char end = 0;

    while (*at && !end) {
        while (*at == ' ')
            at++;
        if (*at && *at != ';' && *at != '&' && argc < WORDS)
            argv[argc++] = at;
        while (*at && *at != ' ' && *at != ';' && *at != '&')
            at++;
        end = *at == ';' || *at == '&' ? *at : 0;
        if (*at)
            *at++ = 0;
    }
    argv[argc] = NULL;
    if (argc && !run_own(argc, argv))
        run_program(argv, end == '&');
    return at;
}

int main(void)
{
    for (;;) {
        char line[LINE_BYTES];
        result got;

        print("$ ");
        print_flush();
        got = read(0, line, sizeof line - 1);
        if (got <= 0)
            return 0;
        line[line[got - 1] == '\n' ? got - 1 : got] = 0;
        for (char *at = line; *at;)
            at = run_command(at);
    }
}
