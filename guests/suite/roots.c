/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ten thousand address spaces, each with a root of its own: more than any cache of shadow tables or roots holds. Below
 * the roots are trees of tables, each leading to one page, and no two spaces have the same pair of trees. The argument
 * roots=N asks for another number.
 */
#include "../lib/cmdline.h"
#include "../lib/string.h"
#include "lib/cpu.h"
#include "lib/memory.h"
#include "lib/report.h"
#include "lib/traps.h"

enum { ROOTS = 10000, TREES = 100, PLACES = 2 };

#if PAGING_LEVELS == 3
enum { ROOT_BYTES = 32 }; /* four entries: many roots in a page */
#else
enum { ROOT_BYTES = PAGE_BYTES };
#endif

/* Next to each other in the root. */
static word place(unsigned number)
{
    return TEST_VA + ((word)number << (12 + INDEX_BITS * (PAGING_LEVELS - 1)));
}

static word root_at(word *next)
{
    word root = *next & (PAGE_BYTES - 1) ? *next : frame_new();

    *next = root + ROOT_BYTES;
    return root;
}

/* Root entries that lead to the trees, one for each. */
static void make_trees(entry_t *trees)
{
    for (unsigned i = 0; i < TREES; i++) {
        entry_t *top = entry_at(space, place(0), PAGING_LEVELS);

        *top = 0;
        *at(map_new(place(0), WRITABLE)) = 0;
        trees[i] = *top;
    }
}

static unsigned tree_of(unsigned root, unsigned number)
{
    return (number ? root / TREES : root) % TREES;
}

static void make_roots(word *roots, unsigned count, const entry_t *trees)
{
    word next = 0;

    for (unsigned i = 0; i < count; i++) {
        roots[i] = root_at(&next);
        memcpy((void *)roots[i], space, ROOT_BYTES);
        for (unsigned number = 0; number < PLACES; number++)
            ((entry_t *)roots[i])[index_of(place(number), PAGING_LEVELS)] = trees[tree_of(i, number)];
    }
}

/* Each tree's page counts its uses, whichever space they come from. */
static void use(unsigned root, uint32_t *uses)
{
    for (unsigned number = 0; number < PLACES; number++) {
        unsigned tree = tree_of(root, number);

        expect("uses that a tree's page has counted", uses[tree]++, (*at(place(number)))++);
    }
}

static void check_roots(word unused)
{
    static word roots[ROOTS];
    static entry_t trees[TREES];
    static uint32_t uses[TREES];
    unsigned count = cmdline_number("roots", ROOTS);

    (void)unused;
    require(count <= ROOTS, "there are at most 10000 roots");
    make_trees(trees);
    make_roots(roots, count, trees);
    for (unsigned round = 0; round < 2; round++)
        for (unsigned i = 0; i < count; i++) {
            load_space((entry_t *)roots[i]);
            use(i, uses);
        }
    load_space(space);
}

static const struct test_case cases[] = {
    {"roots.ten-thousand-spaces", check_roots, 0},
};

void suite_main(void)
{
    RUN_CASES(cases);
}
