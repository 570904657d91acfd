"""What tests of simulated clusters share: a proposal, and the master."""

from __future__ import annotations

from collections.abc import Callable

from paxos.testing.cluster import Cluster, Replica


class Call:
    """A proposal, and what came of it."""

    def __init__(
        self, replica: Replica, value: bytes, timeout: float = 5.0, seen: Callable[[], None] | None = None
    ) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self.seen = seen
        replica.submit(self, value, timeout)

    def done(self) -> bool:
        return self.result is not None or self.error is not None

    def set_result(self, result: object, /) -> None:
        self.result = result
        if self.seen is not None:
            self.seen()

    def set_exception(self, error: BaseException, /) -> None:
        self.error = error


def master_of(cluster: Cluster) -> Replica:
    assert cluster.run_until(lambda: cluster.master() is not None, 20)
    master = cluster.master()
    assert master is not None
    return master
