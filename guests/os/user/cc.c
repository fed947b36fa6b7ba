/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A compiler's work on one source: text read or made up, its words counted in a tree in memory, an object written. cc SOURCE OBJECT SEED BYTES */
#include "lib/system.h"

enum { WORD_BYTES = 24, OBJECT_WORDS = 256 };

struct symbol {
    char name[WORD_BYTES];
    uint32_t count;
    struct symbol *left, *right;
};

static struct symbol *root;
static uint32_t symbols;

static void count_word(const char *word)
{
    struct symbol **at = &root;

    while (*at) {
        int order = strcmp(word, (*at)->name);

        if (!order) {
            (*at)->count++;
            return;
        }
        at = order < 0 ? &(*at)->left : &(*at)->right;
    }
    *at = allocate(sizeof **at);
    memcpy((*at)->name, word, strlen(word) + 1);
    (*at)->count = 1;
    symbols++;
}

static void scan(const char *text, uint32_t bytes)
{
    char word[WORD_BYTES];
    unsigned length = 0;

    for (uint32_t i = 0; i < bytes; i++) {
        if (text[i] > ' ' && length + 1 < WORD_BYTES) {
            word[length++] = text[i];
        } else if (length) {
            word[length] = 0;
            count_word(word);
            length = 0;
        }
    }
}

static uint32_t hash_tree(const struct symbol *symbol, uint32_t hash)
{
    if (!symbol)
        return hash;
    hash = hash_tree(symbol->left, hash);
    for (const char *c = symbol->name; *c; c++)
        hash = mix(hash, *c, symbol->count);
    return hash_tree(symbol->right, hash);
}

/* Words over few letters, so that many come again. */
static void make_text(char *text, uint32_t bytes, uint32_t seed)
{
    struct random random;

    random_seed(&random, seed);
    for (uint32_t i = 0; i < bytes; i++) {
        uint32_t draw = random_below(&random, 40);

        text[i] = draw < 8 ? (draw ? ' ' : '\n') : 'a' + draw % 7;
    }
}

static void read_text(const char *path, char *text, uint32_t bytes)
{
    int fd = open(path, O_RDONLY);

    if (fd < 0 || !read_all(fd, text, bytes))
        die("cc: cannot read %s", path);
    close(fd);
}

static void write_object(const char *path, uint32_t hash)
{
    static uint32_t object[OBJECT_WORDS];
    int fd = open(path, O_WRONLY | O_CREATE | O_TRUNCATE);

    for (unsigned i = 0; i < OBJECT_WORDS; i++)
        object[i] = hash + i;
    if (fd < 0 || !write_all(fd, object, sizeof object))
        die("cc: cannot write %s", path);
    close(fd);
}

int main(int argc, char **argv)
{
    uint32_t seed, bytes;
    char *text;
    uint32_t hash;

    if (argc != 5 || !parse_number(argv[3], &seed) || !parse_number(argv[4], &bytes))
        die("cc: SOURCE OBJECT SEED BYTES, - for no file");
    text = allocate(bytes);
    if (*argv[1] == '-')
        make_text(text, bytes, seed);
    else
        read_text(argv[1], text, bytes);
    scan(text, bytes);
    hash = hash_tree(root, symbols);
    if (*argv[2] != '-')
        write_object(argv[2], hash);
    return hash & 0x7F;
}
