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
    m.count, m.mask = 0, 1023
    m.entries = <Entry *>xzalloc((m.mask + 1) * sizeof(Entry))


cdef void map_free(Map *m) noexcept nogil:
    free(m.entries)
    memset(m, 0, sizeof(Map))


cdef uint32_t map_get(const Map *m, uint64_t key) noexcept nogil:
    cdef uint32_t at = <uint32_t>(mixed(0, key) >> 16) & m.mask
    while m.entries[at].key:
        if m.entries[at].key == key + 1:
            return <uint32_t>m.entries[at].value
        at = (at + 1) & m.mask
    return NOTHING


cdef void _enter(Map *m, Entry entry) noexcept nogil:
    cdef uint32_t at = <uint32_t>(mixed(0, entry.key - 1) >> 16) & m.mask
    while m.entries[at].key:
        at = (at + 1) & m.mask
    m.entries[at] = entry


cdef void map_put(Map *m, uint64_t key, uint32_t value) noexcept nogil:
    cdef Entry *entries = m.entries
    cdef Entry entry
    cdef uint32_t i, size = m.mask + 1
    if m.count * <uint64_t>3 > m.mask * <uint64_t>2:
        m.mask = m.mask * 2 + 1
        m.entries = <Entry *>xzalloc((m.mask + <size_t>1) * sizeof(Entry))
        for i in range(size):
            if entries[i].key:
                _enter(m, entries[i])
        free(entries)
    entry.key, entry.value = key + 1, value
    _enter(m, entry)
    m.count += 1
