# cython: language_level=3
"""Seeded randomness of the simulator: splitmix64. A stream a purpose, so that one draw more here moves nothing elsewhere."""
cimport cython
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t px_random(uint64_t *state) {
        uint64_t z = (*state += 0x9E3779B97F4A7C15ULL);
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
        return z ^ (z >> 31);
    }
    """
    uint64_t random_next "px_random"(uint64_t *state) noexcept nogil

cdef inline int64_t random_between(uint64_t *state, int64_t low, int64_t high) noexcept nogil:
    """In [low, high]."""
    return low + <int64_t>(random_next(state) % <uint64_t>(high - low + 1)) if high > low else low

cdef inline bint random_chance(uint64_t *state, double p) noexcept nogil:
    return p > 0 and <double>(random_next(state) >> 11) < p * 9007199254740992.0
