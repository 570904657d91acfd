# cython: language_level=3, overflowcheck=False
"""Tables of the explorer. Strings are compared byte by byte, so no two states are ever taken for one because of a hash."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memcpy, memset

from paxos._types cimport xrealloc, xzalloc


cdef uint64_t mixed(uint64_t hash, uint64_t word) noexcept nogil:
    """Wraps, on purpose."""
    hash = (hash ^ word) * <uint64_t>0x9E3779B97F4A7C15
    return hash ^ (hash >> 29)


cdef uint64_t _hash(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint64_t hash = size, word
    while size >= 8:
        memcpy(&word, data, 8)
        hash = mixed(hash, word)
        data += 8
        size -= 8
    word = 0
    memcpy(&word, data, size)
    return mixed(mixed(hash, word), 0x5851F42D4C957F2D)


cdef void strings_init(Strings *t) noexcept nogil:
    memset(t, 0, sizeof(Strings))
    t.room = 1024
    t.bytes = <uint8_t *>xzalloc(t.room)
    t.mask = 1023
    t.places = <uint32_t *>xzalloc((t.mask + 1) * sizeof(uint32_t))


cdef void strings_free(Strings *t) noexcept nogil:
    free(t.bytes)
    free(t.ends)
    free(t.places)
    memset(t, 0, sizeof(Strings))


cdef void _grow(Strings *t) noexcept nogil:
    cdef uint32_t i, at
    free(t.places)
    t.mask = t.mask * 2 + 1
    t.places = <uint32_t *>xzalloc((t.mask + <size_t>1) * sizeof(uint32_t))
    for i in range(t.count):
        at = <uint32_t>_hash(strings_data(t, i), strings_size(t, i)) & t.mask
        while t.places[at]:
            at = (at + 1) & t.mask
        t.places[at] = i + 1


cdef uint32_t strings_number(Strings *t, const void *data, size_t size) noexcept nogil:
    cdef uint32_t at = <uint32_t>_hash(<const uint8_t *>data, size) & t.mask
    cdef uint32_t number
    while t.places[at]:
        number = t.places[at] - 1
        if strings_size(t, number) == size and memcmp(strings_data(t, number), data, size) == 0:
            return number
        at = (at + 1) & t.mask
    t.used = (t.used + 7) & ~<size_t>7
    if t.used + size > t.room:
        t.room = (t.used + size) * 2
        t.bytes = <uint8_t *>xrealloc(t.bytes, t.room)
    if t.count == t.capacity:
        t.capacity = t.capacity * 2 if t.capacity else 256
        t.ends = <size_t *>xrealloc(t.ends, t.capacity * sizeof(size_t))
    memcpy(t.bytes + t.used, data, size)
    t.used += size
    t.ends[t.count] = t.used
    t.count += 1
    t.places[at] = t.count
    number = t.count - 1
    if t.count * <uint64_t>3 > t.mask * <uint64_t>2:
        _grow(t)
    return number


cdef void map_init(Map *m) noexcept nogil:
    memset(m, 0, sizeof(Map))
    m.mask = 1023
    m.keys = <uint64_t *>xzalloc((m.mask + 1) * sizeof(uint64_t))
    m.values = <uint32_t *>xzalloc((m.mask + 1) * sizeof(uint32_t))


cdef void map_free(Map *m) noexcept nogil:
    free(m.keys)
    free(m.values)
    memset(m, 0, sizeof(Map))


cdef uint32_t map_get(const Map *m, uint64_t key) noexcept nogil:
    cdef uint32_t at = <uint32_t>(mixed(0, key) >> 16) & m.mask
    while m.keys[at]:
        if m.keys[at] == key + 1:
            return m.values[at]
        at = (at + 1) & m.mask
    return NOTHING


cdef void _place(Map *m, uint64_t kept, uint32_t value) noexcept nogil:
    cdef uint32_t at = <uint32_t>(mixed(0, kept - 1) >> 16) & m.mask
    while m.keys[at]:
        at = (at + 1) & m.mask
    m.keys[at] = kept
    m.values[at] = value


cdef void map_put(Map *m, uint64_t key, uint32_t value) noexcept nogil:
    cdef uint64_t *keys = m.keys
    cdef uint32_t *values = m.values
    cdef uint32_t i, size = m.mask + 1
    if m.count * <uint64_t>3 > m.mask * <uint64_t>2:
        m.mask = m.mask * 2 + 1
        m.keys = <uint64_t *>xzalloc((m.mask + <size_t>1) * sizeof(uint64_t))
        m.values = <uint32_t *>xzalloc((m.mask + <size_t>1) * sizeof(uint32_t))
        for i in range(size):
            if keys[i]:
                _place(m, keys[i], values[i])
        free(keys)
        free(values)
    _place(m, key + 1, value)
    m.count += 1
