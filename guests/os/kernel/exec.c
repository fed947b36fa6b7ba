/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Running a program: an ELF file whose segments become regions that show the file, and a stack with the arguments.
 *
 * The new space is complete before the old one goes, so that an error leaves the caller as it was.
 */
#include "process.h"

#include "../../lib/string.h"
#include "cache.h"
#include "files.h"
#include "kernel.h"
#include "schedule.h"

enum { SEGMENTS = 8, LOAD = 1, WRITABLE_SEGMENT = 2, ARGUMENTS = 32, ARGUMENT_BYTES = 2048 };
enum { MAGIC = 0x464C457F, CLASS = sizeof(word) == 8 ? 2 : 1, MACHINE = sizeof(word) == 8 ? 62 : 3, INTERRUPTS_ON = 0x202 };

struct elf_header {
    uint32_t magic;
    uint8_t class, data, version, padding[9];
    uint16_t type, machine;
    uint32_t version2;
    word entry, segments, sections;
    uint32_t flags;
    uint16_t header_bytes, segment_bytes, segment_count;
};

#if PAGING_LEVELS == 4
struct elf_segment {
    uint32_t type, flags;
    word offset, va, pa, file_bytes, memory_bytes, alignment;
};
#else
struct elf_segment {
    uint32_t type;
    word offset, va, pa, file_bytes, memory_bytes;
    uint32_t flags;
    word alignment;
};
#endif

/* Arguments on their way from the old space to the new. */
struct arguments {
    unsigned count, bytes;
    uint16_t offsets[ARGUMENTS];
    char text[ARGUMENT_BYTES];
};

static struct lock lock; /* of `pending`: one exec at a time reads its arguments */
static struct arguments pending;

static int add_text(const char *from, bool is_user)
{
    if (pending.count == ARGUMENTS)
        return -E2BIG;
    pending.offsets[pending.count++] = pending.bytes;
    for (;;) {
        if (pending.bytes == ARGUMENT_BYTES)
            return -E2BIG;
        if (!is_user)
            pending.text[pending.bytes] = *from;
        else if ((word)from >= USER_END || !user_copy(&pending.text[pending.bytes], from, 1))
            return -EFAULT;
        if (!pending.text[pending.bytes++])
            return 0;
        from++;
    }
}

static int read_arguments(word argv)
{
    for (;; argv += sizeof(word)) {
        word text;
        int error;

        if (argv >= USER_END - sizeof text || !user_copy(&text, (const void *)argv, sizeof text))
            return -EFAULT;
        if (!text)
            return 0;
        error = add_text((const char *)text, true);
        if (error)
            return error;
    }
}

/* For init: its name, then the words of run="...". */
static int split_arguments(const char *path)
{
    const char *rest = argument("run");
    int error = add_text(path, false);
    char one[ARGUMENT_BYTES / 8];

    while (!error && rest && *rest) {
        unsigned length = 0;

        while (*rest == ' ')
            rest++;
        while (*rest && *rest != ' ' && length + 1 < sizeof one)
            one[length++] = *rest++;
        one[length] = 0;
        if (length)
            error = add_text(one, false);
    }
    return error;
}

static int map_segment(struct space *space, struct inode *inode, const struct elf_segment *segment)
{
    word skew = segment->va & (PAGE_BYTES - 1);
    word start = segment->va - skew;
    word end = (segment->va + segment->memory_bytes + PAGE_BYTES - 1) & -(word)PAGE_BYTES;

    if (segment->va >= USER_MAPPINGS || segment->memory_bytes > USER_MAPPINGS - segment->va || segment->file_bytes > segment->memory_bytes ||
        start < PAGE_BYTES || (segment->offset & (PAGE_BYTES - 1)) != skew || segment->offset + segment->file_bytes > inode->size)
        return -ENOEXEC;
    if (end > space->heap_start)
        space->heap = space->heap_start = end;
    return space_map(space, (struct region){
        .start = start,
        .end = end,
        .protection = segment->flags & WRITABLE_SEGMENT ? PROT_READ | PROT_WRITE : PROT_READ | PROT_EXEC,
        .inode = inode,
        .first_page = segment->offset >> PAGE_SHIFT,
        .file_bytes = skew + segment->file_bytes,
    });
}

static int map_program(struct space *space, struct inode *inode, word *entry)
{
    struct frame *page = cache_get(inode, 0);
    const struct elf_header *header = page ? direct(frame_address(page)) : NULL;
    int error = page ? 0 : -EIO;

    if (!error && (header->magic != MAGIC || header->class != CLASS || header->machine != MACHINE || header->segment_count > SEGMENTS ||
                   header->segments > PAGE_BYTES - SEGMENTS * sizeof(struct elf_segment) || header->entry >= USER_MAPPINGS))
        error = -ENOEXEC;
    for (unsigned i = 0; !error && i < header->segment_count; i++) {
        const struct elf_segment *segment = (const struct elf_segment *)((const uint8_t *)header + header->segments) + i;

        if (segment->type == LOAD && segment->memory_bytes)
            error = map_segment(space, inode, segment);
    }
    if (!error)
        *entry = header->entry;
    if (page)
        cache_put(page);
    return error;
}

static int map_stack(struct space *space)
{
    return space_map(space, (struct region){
        .start = USER_STACK_TOP - USER_STACK_BYTES,
        .end = USER_STACK_TOP,
        .protection = PROT_READ | PROT_WRITE,
    });
}

/* argc, argv and the texts, as the program's start finds them at its stack pointer; 0 if there is no memory for them. */
static word push_arguments(void)
{
    word text = USER_STACK_TOP - ((pending.bytes + 15) & -16u);
    word sp = (text - (pending.count + 2) * sizeof(word)) & -(word)16;
    word words[ARGUMENTS + 2] = {pending.count};

    for (unsigned i = 0; i < pending.count; i++)
        words[1 + i] = text + pending.offsets[i];
    if (!user_copy((void *)text, pending.text, pending.bytes) || !user_copy((void *)sp, words, (pending.count + 2) * sizeof(word)))
        return 0;
    return sp;
}

/* The calling process goes over to `space`; false, and it is as before, if there is no memory for the arguments. */
static bool move_to(struct space *space, word entry, struct registers *registers)
{
    struct space *old = current->space;
    word sp;

    current->space = space;
    space_load(space);
    sp = push_arguments();
    if (!sp) {
        current->space = old;
        space_load(old);
        return false;
    }
    space_free(old);
    memset(registers, 0, sizeof *registers);
    registers->ip = entry;
    registers->sp = sp;
    registers->cs = USER_CODE;
    registers->ss = USER_DATA;
    registers->flags = INTERRUPTS_ON;
    return true;
}

static const char *last_name(const char *path)
{
    const char *name = path;

    for (; *path; path++)
        if (*path == '/')
            name = path + 1;
    return name;
}

static int exec(const char *path, struct inode *inode, struct registers *registers)
{
    struct space *space = inode->kind == KIND_FILE ? space_new() : NULL;
    word entry = 0;
    int error = space ? map_program(space, inode, &entry) : inode->kind == KIND_FILE ? -ENOMEM : -EISDIR;

    if (!error)
        error = map_stack(space);
    if (!error && !move_to(space, entry, registers))
        error = -ENOMEM;
    if (error && space)
        space_free(space);
    if (!error)
        strlcpy(current->name, last_name(path), NAME_LENGTH);
    return error;
}

int process_exec(const char *path, word argv, struct registers *registers)
{
    struct inode *inode;
    int error = path_lookup(path, &inode);

    if (error)
        return error;
    if (lock_acquire_unless_killed(&lock)) {
        pending.count = pending.bytes = 0;
        error = argv ? read_arguments(argv) : split_arguments(path);
        if (!error)
            error = exec(path, inode, registers);
        lock_release(&lock);
    } else {
        error = -EAGAIN;
    }
    file_inode_put(inode);
    return error;
}
