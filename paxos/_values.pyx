# cython: language_level=3
"""The values of an instance as Python sees them."""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy
from paxos._types cimport VALUE_BATCH, ChunkHead, Value

from paxos.errors import StorageError


cdef const uint8_t *chunk_values(const ChunkHead *head, const uint8_t *p, uint64_t instance, list values) except NULL:
    """The entries of the chunk whose bytes are at p, appended to `values`; where the next chunk begins."""
    cdef uint32_t left = head.size
    cdef uint32_t length, i
    for i in range(head.count):
        if left < 4:
            raise StorageError(f"a chunk of instance {instance} ends within an entry")
        memcpy(&length, p, 4)
        if length > left - 4:
            raise StorageError(f"a chunk of instance {instance} ends within an entry")
        values.append(PyBytes_FromStringAndSize(<const char *>p + 4, length))
        p += 4 + <size_t>length
        left -= 4 + length
    return p + left


cdef const uint8_t *chunk_head(ChunkHead *head, const uint8_t *p, const uint8_t *end, uint64_t instance) except NULL:
    """The head of the chunk at p; where its bytes begin."""
    if <size_t>(end - p) < sizeof(ChunkHead):
        raise StorageError(f"the value of instance {instance} ends within a chunk")
    memcpy(head, p, sizeof(ChunkHead))
    p += sizeof(ChunkHead)
    if head.size > <size_t>(end - p):
        raise StorageError(f"the value of instance {instance} ends within a chunk")
    return p


cdef list value_runs(Value *value, uint64_t instance):
    cdef list runs = []
    cdef list values = None
    cdef const uint8_t *p = value.data
    cdef const uint8_t *end = p + value.size
    cdef ChunkHead head
    cdef uint32_t machine = 0
    if value.kind != VALUE_BATCH:
        return runs
    while p < end:
        p = chunk_head(&head, p, end, instance)
        if values is None or machine != head.machine:
            machine = head.machine
            values = []
            runs.append((machine, values))
        p = chunk_values(&head, p, instance, values)
    return runs
