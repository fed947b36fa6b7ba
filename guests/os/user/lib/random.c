/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "system.h"

/* Steele, Lea and Flood's splitmix64. */
void random_seed(struct random *random, uint64_t seed)
{
    random->state = seed;
}

uint32_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9E3779B97F4A7C15;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return (z ^ z >> 31) >> 32;
}

uint32_t random_below(struct random *random, uint32_t bound)
{
    return ((uint64_t)random_next(random) * bound) >> 32;
}

uint32_t mix(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t hash = a * 0x9E3779B1 ^ b;

    hash = (hash << 13 | hash >> 19) * 0x85EBCA77 ^ c;
    hash = (hash << 17 | hash >> 15) * 0xC2B2AE3D;
    return hash ^ hash >> 15;
}

enum { ONE = 1 << 20 };

void zipf_init(struct zipf *zipf, uint32_t count)
{
    uint64_t sum = 0;

    zipf->count = count;
    zipf->sums = allocate(count * sizeof *zipf->sums);
    for (uint32_t rank = 0; rank < count; rank++)
        zipf->sums[rank] = sum += ONE / (rank + 1) ? ONE / (rank + 1) : 1;
}

uint32_t zipf_next(const struct zipf *zipf, struct random *random)
{
    uint64_t total = zipf->sums[zipf->count - 1];
    uint64_t draw = (total >> 32 ? (uint64_t)random_next(random) << 32 | random_next(random) : random_below(random, (uint32_t)total));
    uint32_t low = 0, high = zipf->count - 1;

    if (total >> 32)
        draw &= (1ull << (64 - __builtin_clzll(total))) - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;

        if (zipf->sums[middle] > draw)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
