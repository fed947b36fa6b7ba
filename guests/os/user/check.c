/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checks what the kernel promises programs, and reports in the line protocol of the suite (docs/suites.md). */
#include "lib/system.h"

enum { PAGE = 4096, BIG_DIRECTORY = 150, ARGUMENT_PAGES = 33, JAM = 6, HOLE = 32 << 20 };

static unsigned passed, failed, skipped;
static const char *name;
static bool has_failed;

static void expect(const char *what, result expected, result seen)
{
    if (expected == seen || has_failed)
        return;
    has_failed = true;
    print("FAIL %s: expected %d, seen %d (%s)\n", name, (int)expected, (int)seen, what);
}

static int status_of(int pid)
{
    int status = -1;

    expect("the child is waited for", pid, wait(pid, &status));
    return status;
}

static bool has_disk(void)
{
    struct stat root;

    return stat("/", &root) == 0;
}

/* ---- processes ---- */

static void test_fork(void)
{
    static int shared = 1;
    int pid = fork();

    if (pid == 0) {
        shared = 2;
        exit(shared + 40);
    }
    expect("the child's status", 42, status_of(pid));
    expect("the parent's own copy", 1, shared);
    expect("no child is left", -ECHILD, wait(-1, NULL));
}

static void test_killed(void)
{
    int pid = fork();

    if (pid == 0)
        *(volatile int *)16 = 0;
    expect("a store to nowhere kills", KILLED + SIGNAL_FAULT, status_of(pid));
    pid = fork();
    if (pid == 0) {
        *(volatile int *)test_fork = 0;
        exit(0);
    }
    expect("a store to code kills", KILLED + SIGNAL_FAULT, status_of(pid));
    pid = fork();
    if (pid == 0) {
        __asm__ volatile("cli");
        exit(0);
    }
    expect("a privileged instruction kills", KILLED + SIGNAL_FAULT, status_of(pid));
    pid = fork();
    if (pid == 0)
        for (;;)
            ;
    sleep(2);
    expect("kill", 0, kill(pid));
    expect("its status", KILLED + SIGNAL_KILL, status_of(pid));
    expect("nobody else", -ECHILD, kill(12345));
    expect("not init", -EPERM, kill(1));
}

static void test_exec(void)
{
    char *argv[] = {"idle", "seconds=0", NULL};
    int pid = fork();

    if (pid == 0)
        exit(exec("/bin/idle", argv) ? 1 : 2);
    expect("a program runs", 0, status_of(pid));
    expect("none of that name", -ENOENT, exec("/bin/nothing", argv));
    expect("not a directory", -EISDIR, exec("/bin", argv));
    expect("wild arguments", -EFAULT, exec("/bin/idle", (char **)0xC0000000));
}

/* Arguments that take a page each, in memory that nobody touched yet. */
static void exec_by_the_page(uint8_t *memory)
{
    char *argv[ARGUMENT_PAGES + 1];

    for (unsigned i = 0; i < ARGUMENT_PAGES; i++)
        argv[i] = (char *)memory + i * PAGE;
    argv[ARGUMENT_PAGES] = NULL;
    expect("too many arguments", -E2BIG, exec("/bin/idle", argv));
}

/* Who waits for memory inside exec must not keep the one that is killed for it from its end. */
static void test_exec_without_memory(void)
{
    struct memory_info info;
    int pids[JAM];

    meminfo(&info);
    size_t share = (size_t)(info.free + info.cached + info.swap_total - info.swap_used) / 2 * PAGE; /* two take all there is */
    for (unsigned i = 0; i < JAM; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            uint8_t *memory = mmap(share, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (size_t at = 0; memory && at + ARGUMENT_PAGES * PAGE <= share; at += ARGUMENT_PAGES * PAGE) {
                exec_by_the_page(memory + at);
                yield();
            }
            exit(memory ? 0 : 1);
        }
    }
    unsigned killed = 0;
    for (unsigned i = 0; i < JAM; i++)
        killed += status_of(pids[i]) == KILLED + SIGNAL_KILL;
    expect("some were killed", 1, killed > 0);
}

static void test_time(void)
{
    uint32_t before = now();

    sleep(7);
    expect("ticks slept", 1, now() - before >= 7 && now() - before < 20);
}

/* ---- memory ---- */

static void test_pointers(void)
{
    static const uintptr_t wild[] = {0, 1, 0x3FF000, 0x50000000, 0xBFFFFFF0, 0xC0000000, (uintptr_t)-1, (uintptr_t)-PAGE};
    int fd = open("/bin/init", O_RDONLY);

    for (unsigned i = 0; i < sizeof wild / sizeof *wild; i++) {
        expect("write", -EFAULT, write(1, (void *)wild[i], 64));
        expect("read", -EFAULT, read(fd, (void *)wild[i], 64));
        expect("stat", -EFAULT, stat("/bin/init", (struct stat *)wild[i]));
        expect("open", -EFAULT, open((char *)wild[i], O_RDONLY));
        expect("meminfo", -EFAULT, meminfo((struct memory_info *)wild[i]));
    }
    expect("code is not for reading into", -EFAULT, read(fd, (void *)test_fork, 64));
    close(fd);
}

static void test_heap(void)
{
    uint32_t *blocks[64];
    uint8_t *end = sbrk(0);

    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = allocate(1000 + i * 100);
        for (unsigned k = 0; k < 250; k++)
            blocks[i][k] = i * 1000 + k;
    }
    for (unsigned i = 0; i < 64; i++)
        for (unsigned k = 0; k < 250; k++)
            expect("a block keeps its words", i * 1000 + k, blocks[i][k]);
    for (unsigned i = 0; i < 64; i++)
        release(blocks[i]);
    expect("fresh memory is zero", 0, *(uint8_t *)sbrk(PAGE));
    expect("the heap grew", 1, (uint8_t *)sbrk(0) > end);
    expect("too much is refused", 1, sbrk(0x70000000) == NULL);
}

static void test_mmap(void)
{
    int fd = open("/bin/init", O_RDONLY);
    uint8_t first[64];
    uint8_t *private = mmap(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    uint32_t *zeros = mmap(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    expect("the file is read", 1, read_all(fd, first, sizeof first));
    expect("both are mapped", 1, private && zeros);
    expect("the mapping shows the file", 0, memcmp(private, first, sizeof first));
    private[0] ^= 0xFF;
    seek(fd, 0, SEEK_SET);
    read_all(fd, first, sizeof first);
    expect("a private store stays private", 1, private[0] != first[0]);
    expect("anonymous memory is zero", 0, zeros[2 * PAGE / 4]);
    expect("shared and writable needs a file that is", 1, mmap(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == NULL);
    expect("not in the middle of a page", 1, mmap(PAGE, PROT_READ, MAP_PRIVATE, fd, 100) == NULL);
    expect("it goes", 0, munmap(private, PAGE));
    expect("only once", -EINVAL, munmap(private, PAGE));
    int pid = fork();
    if (pid == 0)
        exit(private[0]);
    expect("and is gone", KILLED + SIGNAL_FAULT, status_of(pid));
    munmap(zeros, 3 * PAGE);
    close(fd);
}

static void test_shared_mapping(void)
{
    int fd = open("/check-map", O_RDWR | O_CREATE | O_TRUNCATE);
    uint32_t *map;
    uint32_t word = 7;

    for (unsigned i = 0; i < 2 * PAGE / 4; i++)
        write_all(fd, &word, 4);
    map = mmap(2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    expect("mapped", 1, map != NULL);
    expect("it shows the file", 7, map[PAGE / 4]);
    int pid = fork();
    if (pid == 0) {
        map[PAGE / 4] = 99;
        exit(0);
    }
    status_of(pid);
    expect("the child's store is everybody's", 99, map[PAGE / 4]);
    seek(fd, PAGE, SEEK_SET);
    read_all(fd, &word, 4);
    expect("and the file's", 99, word);
    munmap(map, 2 * PAGE);
    close(fd);
    unlink("/check-map");
}

/* A store that the disk has no room for kills at once: such a page could never be written, nor its frame be used again. */
static void test_hole_on_full_disk(void)
{
    static char block[16 * PAGE];
    int fill = open("/check-fill", O_RDWR | O_CREATE | O_TRUNCATE);
    int hole = open("/check-hole", O_RDWR | O_CREATE | O_TRUNCATE);

    seek(hole, HOLE - 1, SEEK_SET);
    expect("a file with a hole", 1, write(hole, "x", 1));
    while (write(fill, block, sizeof block) > 0)
        ;
    expect("the disk is full", -ENOSPC, write(fill, block, PAGE));
    int pid = fork();
    if (pid == 0) {
        volatile char *map = mmap(HOLE, PROT_READ | PROT_WRITE, MAP_SHARED, hole, 0);
        for (unsigned at = 0; at < HOLE; at += PAGE)
            map[at] = 1;
        exit(0);
    }
    expect("a store to the hole kills", KILLED + SIGNAL_FAULT, status_of(pid));
    close(fill);
    close(hole);
    unlink("/check-fill");
    unlink("/check-hole");
    expect("room again", 0, sync());
}

/* ---- files ---- */

static void test_file(void)
{
    char text[64];
    struct stat about;
    int fd = open("/check", O_RDWR | O_CREATE | O_TRUNCATE);

    expect("written", 5, write(fd, "hello", 5));
    expect("sought", 1, seek(fd, 1, SEEK_SET));
    expect("read", 4, read(fd, text, sizeof text));
    expect("the bytes", 0, memcmp(text, "ello", 4));
    expect("the end", 0, read(fd, text, sizeof text));
    seek(fd, 100000, SEEK_SET);
    expect("far behind the end", 1, write(fd, "x", 1));
    expect("its size", 0, fstat(fd, &about));
    expect("is that", 100001, about.size);
    seek(fd, 50000, SEEK_SET);
    read(fd, text, 1);
    expect("a hole reads as zero", 0, text[0]);
    close(fd);
    fd = open("/check", O_WRONLY | O_APPEND);
    write(fd, "end", 3);
    expect("appended", 100004, seek(fd, 0, SEEK_CURRENT));
    expect("not for reading", -EBADF, read(fd, text, 1));
    close(fd);
    fd = open("/check", O_RDWR | O_TRUNCATE);
    fstat(fd, &about);
    expect("cut off", 0, about.size);
    write(fd, "kept", 4);
    expect("its name goes", 0, unlink("/check"));
    expect("and is not found", -ENOENT, open("/check", O_RDONLY));
    seek(fd, 0, SEEK_SET);
    expect("but the file stays while it is open", 4, read(fd, text, sizeof text));
    close(fd);
}

static void test_names(void)
{
    static char long_name[NAME_BYTES + 4] = "/";

    expect("a directory", 0, mkdir("/check-d"));
    expect("not twice", -EEXIST, mkdir("/check-d"));
    close(open("/check-d/a", O_WRONLY | O_CREATE));
    expect("not while it has files", -ENOTEMPTY, unlink("/check-d"));
    expect("renamed", 0, rename("/check-d/a", "/check-b"));
    expect("from there", -ENOENT, open("/check-d/a", O_RDONLY));
    close(open("/check-c", O_WRONLY | O_CREATE));
    expect("over another file", 0, rename("/check-b", "/check-c"));
    expect("not over a directory", -EISDIR, rename("/check-c", "/check-d"));
    expect("a file is no directory", -ENOTDIR, open("/check-c/x", O_RDONLY));
    expect("gone", 0, unlink("/check-c"));
    expect("and the directory", 0, unlink("/check-d"));
    expect("/bin is not for writing", -EROFS, open("/bin/new", O_WRONLY | O_CREATE));
    for (unsigned i = 1; i <= NAME_BYTES; i++)
        long_name[i] = 'n';
    expect("a name too long", -ENAMETOOLONG, open(long_name, O_WRONLY | O_CREATE));
}

static void test_big_directory(void)
{
    char path[] = "/check-d/000";
    struct directory_entry entry;
    unsigned seen = 0;

    mkdir("/check-d");
    for (unsigned i = 0; i < BIG_DIRECTORY; i++) {
        path[9] = '0' + i / 100;
        path[10] = '0' + i / 10 % 10;
        path[11] = '0' + i % 10;
        close(open(path, O_WRONLY | O_CREATE));
    }
    int fd = open("/check-d", O_RDONLY);
    while (readdir(fd, &entry) == 1)
        seen++;
    close(fd);
    expect("files in it", BIG_DIRECTORY, seen);
    for (unsigned i = 0; i < BIG_DIRECTORY; i++) {
        path[9] = '0' + i / 100;
        path[10] = '0' + i / 10 % 10;
        path[11] = '0' + i % 10;
        expect("one goes", 0, unlink(path));
    }
    expect("all gone", 0, unlink("/check-d"));
}

static void test_descriptors(void)
{
    int fds[20];
    unsigned count = 0;

    while (count < 20 && (fds[count] = open("/bin/init", O_RDONLY)) >= 0)
        count++;
    expect("as many as there is room for", 13, count);
    expect("then refused", -EMFILE, fds[count]);
    while (count)
        close(fds[--count]);
    expect("closed twice", -EBADF, close(fds[0]));
    expect("none of that number", -EBADF, read(99, &count, 4));
    expect("no such call", -ENOSYS, system_call(99, 0, 0, 0, 0, 0));
}

static const struct {
    const char *name;
    void (*run)(void);
    bool needs_disk;
} tests[] = {
    {"fork", test_fork, false}, {"killed", test_killed, false}, {"exec", test_exec, false}, {"time", test_time, false},
    {"pointers", test_pointers, false}, {"heap", test_heap, false}, {"mmap", test_mmap, false}, {"descriptors", test_descriptors, false},
    {"shared mapping", test_shared_mapping, true}, {"file", test_file, true}, {"names", test_names, true},
    {"big directory", test_big_directory, true}, {"hole on a full disk", test_hole_on_full_disk, true},
    {"exec without memory", test_exec_without_memory, false},
};

int main(void)
{
    for (unsigned i = 0; i < sizeof tests / sizeof *tests; i++) {
        name = tests[i].name;
        has_failed = false;
        if (tests[i].needs_disk && !has_disk()) {
            print("SKIP %s: no disk\n", name);
            skipped++;
            continue;
        }
        tests[i].run();
        failed += has_failed;
        if (!has_failed) {
            passed++;
            print("PASS %s\n", name);
        }
    }
    print("%u passed, %u failed, %u skipped\n", passed, failed, skipped);
    return failed != 0;
}
