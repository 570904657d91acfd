# cython: language_level=3
"""Tables of the explorer: byte strings that are kept once and known by their numbers, and a map of numbers."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    NOTHING = 0x7FFFFFFF            # the number of no string, the value of no key

cdef struct Strings:
    uint8_t *bytes                  # all of them, one behind the other; each begins at a multiple of 8
    size_t used
    size_t room
    size_t *ends                    # ends[i]: behind string i
    uint32_t count
    uint32_t capacity
    uint32_t *places                # open addressing: number + 1, 0 where nothing is
    uint32_t mask

cdef struct Entry:
    uint64_t key                    # + 1, 0 where nothing is
    uint64_t value

cdef struct Map:
    Entry *entries
    uint32_t count
    uint32_t mask

cdef uint64_t mixed(uint64_t hash, uint64_t word) noexcept nogil
cdef void strings_init(Strings *t) noexcept nogil
cdef void strings_free(Strings *t) noexcept nogil
cdef uint32_t strings_number(Strings *t, const void *data, size_t size) noexcept nogil      # of the string; added if new
cdef void map_init(Map *m) noexcept nogil
cdef void map_free(Map *m) noexcept nogil
cdef uint32_t map_get(const Map *m, uint64_t key) noexcept nogil                            # or NOTHING
cdef void map_put(Map *m, uint64_t key, uint32_t value) noexcept nogil                      # of a key that is not there

cdef inline size_t strings_begin(const Strings *t, uint32_t number) noexcept nogil:
    return (t.ends[number - 1] + 7) & ~<size_t>7 if number else 0

cdef inline const uint8_t *strings_data(const Strings *t, uint32_t number) noexcept nogil:
    """Valid until the next string is added."""
    return t.bytes + strings_begin(t, number)

cdef inline size_t strings_size(const Strings *t, uint32_t number) noexcept nogil:
    return t.ends[number] - strings_begin(t, number)
