# cython: language_level=3
from libc.stdint cimport uint8_t, uint64_t
from paxos._types cimport ChunkHead, Value

# The head of the chunk at p; where its bytes begin. StorageError where it does not fit.
cdef const uint8_t *chunk_head(ChunkHead *head, const uint8_t *p, const uint8_t *end, uint64_t instance) except NULL
# The entries of the chunk whose bytes are at p, appended to `values`; where the next chunk begins.
cdef const uint8_t *chunk_values(const ChunkHead *head, const uint8_t *p, uint64_t instance, list values) except NULL
# [(state machine, [bytes, ...]), ...], adjacent chunks of one together.
cdef list value_runs(Value *value, uint64_t instance)
