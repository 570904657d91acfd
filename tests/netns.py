"""A network of one's own for real processes: each node in a network namespace, joined by a bridge, cut at will.

    with Network(3) as network:
        cluster = Cluster(base, hosts=network.hosts, prefixes=network.prefixes)
        network.cut(1, 2)       # nothing that 1 sends reaches 2; the other direction still works
        network.heal()

The bridge stands in a namespace, too, so that no packet filter of this machine sees what passes it; one more cable leads
from there to this machine, for clients. A cut is silent, as that of a real network is: the sender is given a hardware
address for the receiver that nobody has, and the bridge carries the packets to nowhere.

Everything is removed by a process that waits for this one to close a pipe: at ``close``, and as well after Ctrl-C or
``kill -9`` of the tests. Names carry the id of this process. Needs root and ``ip`` of iproute2, nothing else.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

# For measurements between networks (RFC 2544): no machine has its own addresses there.
NETWORK = "198.18"
NOWHERE = "02:00:00:00:00:ff"
SWITCH = 0  # stands for the bridge among the numbers of the nodes
# Ends what still runs in there first: a namespace lives as long as a process in it. The cable to this machine would go
# with the bridge, but some time later.
GUARD = """
link=$1
shift
cat >/dev/null
for name in "$@"; do
    for process in $(ip netns pids "$name"); do kill -9 "$process"; done
    ip netns delete "$name"
done
ip link delete "$link"
"""


class NetworkError(Exception):
    """A command of ``ip`` failed."""


def ip(*arguments: str, commands: Sequence[str] = ()) -> str:
    """Runs ``ip``; ``commands`` in one process, up to the first that fails."""
    if commands:
        arguments = (*arguments, "-batch", "-")
    run = subprocess.run(["ip", *arguments], input="\n".join(commands), capture_output=True, text=True, check=False)
    if run.returncode:
        raise NetworkError(f"ip {' '.join(arguments)}: {run.stderr.strip() or run.returncode}")
    return run.stdout


@functools.cache
def missing() -> str | None:
    """Why there can be no namespaces here, or None. Found out by making one, once."""
    if shutil.which("ip") is None:
        return "there is no command ip (Debian/Ubuntu: apt-get install iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Network(1):
            return None
    except NetworkError as error:
        return f"no network namespaces here: {error}"


class Network:
    """``size`` namespaces with one address each. ``hosts`` and ``prefixes`` are for ``Cluster``."""

    count = 0

    def __init__(self, size: int) -> None:
        Network.count += 1
        # Fifteen characters are the most that the kernel takes for a device.
        self.link = f"pax{os.getpid()}-{Network.count}"
        self.names = {number: f"{self.link}-{number}" for number in (SWITCH, *range(1, size + 1))}
        self.guard: subprocess.Popen[bytes] | None = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", self.link, *self.names.values()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process; that one ends behind it
        )
        try:
            subnet = self._free_subnet()
            self.hosts: Mapping[int, str] = {number: f"{subnet}.{number}" for number in self.names if number != SWITCH}
            self.prefixes: Mapping[int, Sequence[str]] = {
                number: ["ip", "netns", "exec", name] for number, name in self.names.items() if number != SWITCH
            }
            self._build(f"{subnet}.254")
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _free_subnet() -> str:
        taken = ip("-4", "-o", "address", "show")
        start = os.getpid()
        for number in range(start, start + 256):
            subnet = f"{NETWORK}.{number % 256}"
            if f"{subnet}." not in taken:
                return subnet
        raise NetworkError(f"all of {NETWORK}.0.0/16 is in use")

    def _build(self, address: str) -> None:
        link, switch = self.link, self.names[SWITCH]
        ip(commands=[f"netns add {name}" for name in self.names.values()])
        ip("-n", switch, commands=["link add bridge type bridge", "link set bridge up"])
        commands = [f"link add {link} type veth peer name here netns {switch}"]
        commands += [
            f"link add up0 netns {self.names[number]} address {self._hardware(number)} type veth "
            f"peer name node{number} netns {switch}"
            for number in self.hosts
        ]
        ip(commands=commands)
        ports = ["here", *[f"node{number}" for number in self.hosts]]
        ip("-n", switch, commands=[f"link set {port} master bridge up" for port in ports])
        for number, host in self.hosts.items():
            commands = ["link set lo up", f"address add {host}/24 dev up0", "link set up0 up"]
            ip("-n", self.names[number], commands=commands)
        ip(commands=[f"address add {address}/24 dev {link}", f"link set {link} up"])
        self.heal()

    @staticmethod
    def _hardware(number: int) -> str:
        return f"02:00:00:00:00:{number:02x}"

    def _point(self, sender: int, addresses: Mapping[int, str]) -> None:
        commands = [
            f"neighbour replace {self.hosts[to]} lladdr {address} dev up0 nud permanent"
            for to, address in addresses.items()
        ]
        if commands:
            ip("-n", self.names[sender], commands=commands)

    def cut(self, sender: int, receiver: int) -> None:
        """From now on nothing that ``sender`` sends reaches ``receiver``."""
        self._point(sender, {receiver: NOWHERE})

    def cut_all(self, links: Iterable[tuple[int, int]]) -> None:
        """``cut`` for many (sender, receiver), in as little time as it takes."""
        receivers: dict[int, dict[int, str]] = {}
        for sender, receiver in links:
            receivers.setdefault(sender, {})[receiver] = NOWHERE
        for sender, addresses in receivers.items():
            self._point(sender, addresses)

    def split(self, *sides: Sequence[int]) -> None:
        """Nodes of different sides do not reach one another."""
        for side in sides:
            others = [number for other in sides if other is not side for number in other]
            for sender in side:
                self._point(sender, dict.fromkeys(others, NOWHERE))

    def heal(self) -> None:
        """Everybody reaches everybody."""
        for sender in self.hosts:
            self._point(sender, {number: self._hardware(number) for number in self.hosts if number != sender})

    def close(self) -> None:
        """Removes everything, with the processes that still run in it. May be called twice."""
        guard, self.guard = self.guard, None
        if guard is not None:
            guard.communicate(timeout=60)  # closes the pipe, which is what it waits for

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
