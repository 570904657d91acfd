"""The commands and their options. What they do is in the modules of their names, imported when asked for."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from paxos import Consistency, PaxosError

from .member_commands import member, members, node_id
from .params import address_option, bind_option, cluster_option, nodes_option

EXAMPLES = """\b
Examples:
  paxos demo
  paxos serve --id 1 --cluster 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101 --data /var/lib/paxos --resp 0.0.0.0:6379
  paxos bench --clients 1000 --value-size 100 --seconds 5
  paxos verify /var/lib/paxos        # of a node that is stopped
  paxos log /var/lib/paxos
  paxos checkpoint 10.0.0.1:6379
  paxos members --at 10.0.0.1:6379
  paxos member add 4 10.0.0.4:7101 --at 10.0.0.1:6379
  paxos recover /mnt/old2            # of a cluster that lost its majority for good: what is left, and what may be lost
"""

RECORD_TYPES = ["write", "identity", "formation", "formed", "promise", "accept", "learn", "watermark", "base"]
LEVELS = ["debug", "info", "warning", "error"]

loop_option = click.option(
    "--loop", type=click.Choice(["asyncio", "uvloop"]), default="asyncio", show_default=True, help="The event loop."
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=EXAMPLES,
    invoke_without_command=True,
)
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Replicated state machines: a key-value service on three machines, its tools, a demonstration, a benchmark."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


@cli.command(
    epilog="""\b
Example, on each of three machines with its own --id:
  paxos serve --id 1 --cluster 1=10.0.0.1:7101,2=10.0.0.2:7101,3=10.0.0.3:7101 --data /var/lib/paxos --resp 0.0.0.0:6379
  redis-cli -h 10.0.0.1 set greeting hello
"""
)
@click.option("--id", "node_id", type=node_id, required=True, help="This node, one of --cluster.")
@click.option("--cluster", metavar="1=HOST:PORT,2=…", callback=cluster_option, required=True,
              help="All nodes and the addresses they meet on. A name is resolved at each attempt to connect.")  # fmt: skip
@click.option("--bind", metavar="HOST:PORT", callback=bind_option,
              help="Where this node listens for the others, if not on its address in --cluster.")  # fmt: skip
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Directory of this node's log; made where it is missing.",
)
@click.option("--resp", metavar="HOST:PORT", callback=address_option, required=True,
              help="Where Redis clients connect.")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0.001), default=5.0, show_default=True,
              help="Seconds until a command is answered with an error.")  # fmt: skip
@click.option("--window", type=click.IntRange(1, 64), default=8, show_default=True, help="Instances in flight.")
@click.option(
    "--reads",
    type=click.Choice(["linearizable", "lease", "stale"]),
    default="linearizable",
    show_default=True,
    help="What GET and its like show: all that was acknowledged anywhere, for a round of messages to a majority; lease: the "
    "same, at the master for none, where clocks run alike; stale: what this node has at the moment, for nothing. None costs a "
    "log write.",
)
@click.option("--lease", type=click.FloatRange(min=0.1, max=60), metavar="SECONDS",
              help="How long leases are to last, with --reads lease: a master sets it for all nodes. While one lasts, no other "
              "node becomes master.  [default: 0.25]")  # fmt: skip
@click.option("--when-removed", type=click.Choice(["exit", "idle"]), default="exit", show_default=True,
              help="What it does when it has been removed from the cluster: end, with status 0, or stay.")  # fmt: skip
@click.option("--follow", metavar="ID,…", callback=nodes_option,
              help="While this node has no vote, it learns from the first of these that answers, else from whoever is "
              "best.")  # fmt: skip
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@loop_option
@click.option("--until-stdin-ends", is_flag=True, hidden=True)
def serve(
    node_id: int,
    cluster: dict[int, str],
    bind: str | None,
    data: Path,
    resp: tuple[str, int],
    timeout: float,
    window: int,
    reads: Consistency,
    lease: float | None,
    when_removed: str,
    follow: tuple[int, ...],
    log_level: str,
    loop: str,
    until_stdin_ends: bool,
) -> None:
    """Run one node of the key-value service until SIGTERM or Ctrl-C.

    Redis clients can talk to any node. A write is acknowledged when it is on the disks of a majority.
    """
    from . import loops
    from . import serve as module

    if node_id not in cluster:
        named = ", ".join(map(str, cluster))
        raise click.BadParameter(f"{node_id} is not in --cluster, which names {named}", param_hint="--id")
    logging.basicConfig(
        level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    if lease is not None and reads != "lease":
        raise click.BadParameter("is of use with --reads lease only", param_hint="--lease")
    options = module.ServeOptions(
        node_id,
        cluster,
        bind,
        data,
        resp,
        timeout,
        window,
        reads,
        lease or 0.25,
        until_stdin_ends,
        when_removed == "exit",
        follow,
    )
    loops.run(module.serve(options), loop)


@cli.command(
    epilog="""\b
Examples:
  paxos demo
  paxos demo --json
  paxos demo --keep        # then: redis-cli -p PORT set greeting hello
"""
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@click.option("--keep", is_flag=True, help="Leave the three nodes up and say how to talk to them.")
@click.option("--seconds", type=click.FloatRange(0.5, 60), default=2.5, show_default=True,
              help="Length of each of the three phases of load.")  # fmt: skip
@click.option("--writers", type=click.IntRange(1, 256), default=16, show_default=True, help="Connections that write.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path),
              help="An empty directory for the three nodes; default: a temporary one.")  # fmt: skip
def demo(as_json: bool, keep: bool, seconds: float, writers: int, data: Path | None) -> None:
    """Start three nodes, write, kill -9 the master, restart it, and prove that nothing was lost.

    The exit status is 0 only when every acknowledged write is there and all three nodes hold the same log.
    """
    from . import demo as module
    from . import loops

    options = module.DemoOptions(as_json, keep, seconds, writers, data)
    if not loops.run(module.demo(options)):
        raise SystemExit(1)


@cli.command(
    epilog="""\b
Examples:
  paxos bench --clients 1 --value-size 100 --seconds 5 --floor
  paxos bench --clients 1000 --value-size 100 --seconds 5 --json
  paxos bench --clients 10 --batch 100 --value-size 100     # 1,000 values outstanding through propose_many
"""
)
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True, help="Node processes.")
@click.option("--clients", type=click.IntRange(1, 100_000), default=1, show_default=True,
              help="Tasks that propose, each with one call under way.")  # fmt: skip
@click.option("--value-size", type=click.IntRange(0, 10 << 20), default=100, show_default=True, help="Bytes.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True, help="Measured window.")
@click.option("--warmup", type=click.FloatRange(0, 60), default=1.0, show_default=True, help="Seconds before it.")
@click.option("--batch", type=click.IntRange(1, 100_000), default=1, show_default=True,
              help="Values a call; above 1 through propose_many.")  # fmt: skip
@click.option("--window", type=click.IntRange(1, 64), default=8, show_default=True, help="Instances in flight.")
@click.option("--remote", is_flag=True, help="The load in a follower's process instead of the master's.")
@click.option("--floor", is_flag=True, help="Measure the bare disk write and network round trip first.")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path),
              help="A directory on the disk to measure; default: a temporary one.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
@loop_option
def bench(
    nodes: int,
    clients: int,
    value_size: int,
    seconds: float,
    warmup: float,
    batch: int,
    window: int,
    remote: bool,
    floor: bool,
    data: Path | None,
    as_json: bool,
    loop: str,
) -> None:
    """Measure a cluster of node processes on this machine: values a second, latency, and what a value costs.

    The load runs in the master's process through the asyncio API. Counts are the nodes' own, over the measured window.
    """
    from . import bench as module
    from . import loops

    loops.loop_factory(loop)  # the workers use it; a missing one is told here, in one line
    options = module.BenchOptions(
        nodes, clients, value_size, seconds, warmup, batch, window, remote, floor, data, as_json, loop
    )
    loops.run(module.bench(options))


directory_argument = click.argument(
    "directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path)
)


@cli.command(
    epilog="""\b
Examples:
  paxos verify /var/lib/paxos
  paxos verify /var/lib/paxos --json | jq '.findings[]'
"""
)
@directory_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def verify(directory: Path, as_json: bool) -> None:
    """Check every byte of a stopped node's data directory: log, checkpoints, what is left over. Nothing is changed.

    For what is wrong it says where, what the next start makes of it, and what to do. The exit status is 0 when all is good
    (what was torn when the process ended is), 1 when something is damaged, 2 when DIR cannot be looked at, as while a node
    runs on it.
    """
    from . import verify as module

    if not module.run(directory, as_json):
        raise SystemExit(1)


@cli.command(
    epilog="""\b
Examples:
  paxos log /var/lib/paxos                                    # the node, its cluster, its segments
  paxos log /var/lib/paxos --records --limit 20
  paxos log /var/lib/paxos --records --from 1000 --to 1010
  paxos log /var/lib/paxos --records --type promise --type base --json
  paxos log /var/lib/paxos --instance 1003 --hex              # where its value lies, and the value
"""
)
@directory_argument
@click.option("--records", is_flag=True, help="List the records, in log order.")
@click.option("--from", "first", type=click.IntRange(min=0), help="Only records about instances from this one on.")
@click.option("--to", "last", type=click.IntRange(min=0), help="... and up to this one.")
@click.option("--type", "types", type=click.Choice(RECORD_TYPES), multiple=True,
              help="Only records of this type; may be given again. write: the writes that they lie in.")  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), help="At most so many records.")
@click.option("--instance", type=click.IntRange(min=0), help="Where the value of this instance lies, and the value.")
@click.option("--hex", "as_hex", is_flag=True, help="With --instance: the whole value, in hexadecimal.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: the node, each segment, each record.")
def log(
    directory: Path,
    records: bool,
    first: int | None,
    last: int | None,
    types: tuple[str, ...],
    limit: int | None,
    instance: int | None,
    as_hex: bool,
    as_json: bool,
) -> None:
    """Show what the log of a stopped node holds: its segments, system variables, records, values, damage.

    The exit status is 0 when all is good, 1 when the log is damaged or the instance is not in it, 2 when DIR cannot be looked
    at, as while a node runs on it.
    """
    from . import log as module

    if not records and (first is not None or last is not None or types or limit is not None):
        raise click.UsageError("--from, --to, --type and --limit go with --records")
    if records and instance is not None:
        raise click.UsageError("--records or --instance, not both; for a range: --records --from 5 --to 9")
    if as_hex and instance is None:
        raise click.UsageError("--hex goes with --instance")
    if "write" in types and (len(set(types)) > 1 or first is not None or last is not None):
        raise click.UsageError("--type write goes with no other type, and a write is about no instance")
    if first is not None and last is not None and first > last:
        raise click.UsageError(f"--from {first} is above --to {last}")
    options = module.LogOptions(directory, records, first, last, types, limit, instance, as_hex, as_json)
    if not module.run(options):
        raise SystemExit(1)


@cli.command(
    epilog="""\b
Examples:
  paxos checkpoint 10.0.0.1:6379
  paxos checkpoint 127.0.0.1:6379 --timeout 600 --json
"""
)
@click.argument("address", metavar="HOST:PORT", callback=address_option)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=3600.0, show_default=True,
              help="Seconds until the checkpoint must be there.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def checkpoint(address: tuple[str, int], timeout: float, as_json: bool) -> None:
    """Have a running node of the key-value service make a checkpoint. HOST:PORT is what it was given with --resp.

    It is durable, and was read again, when this ends; the log below it may then be deleted.
    """
    from . import checkpoint as module
    from . import loops

    loops.run(module.run(module.CheckpointOptions(address, timeout, as_json)))


@cli.command(
    epilog="""\b
Examples:
  paxos recover /mnt/old2                                                  # only looks, and says what may be lost
  paxos recover /mnt/old2 --new-cluster --to /srv/new                      # the same node ids; asks first
  paxos recover /mnt/old2 /mnt/old4 --new-cluster --to /srv/new --nodes 1,2,3 --yes --json
"""
)
@click.argument("directories", metavar="DIR...", nargs=-1, required=True,
                type=click.Path(exists=True, file_okay=False, path_type=Path))  # fmt: skip
@click.option("--new-cluster", is_flag=True, help="Make the new cluster. Without it nothing is made: only the report.")
@click.option("--to", metavar="DIR", type=click.Path(path_type=Path),
              help="A new directory: DIR/ID becomes the data directory of each new node.")  # fmt: skip
@click.option("--nodes", metavar="1,2,…", callback=lambda ctx, param, text: _parsed(_nodes)(ctx, param, text),
              help="Ids of the new cluster's nodes; default: those of the old one.")  # fmt: skip
@click.option("--no-quarantine", is_flag=True, help="Do not use the logs in the directories' quarantine/.")
@click.option("--accept-loss", is_flag=True,
              help="Go on though values that are known to be chosen are in none of the directories.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Only the report, whatever else is given.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else; --new-cluster wants --yes then."
)
def recover(
    directories: tuple[Path, ...],
    new_cluster: bool,
    to: Path | None,
    nodes: tuple[int, ...] | None,
    no_quarantine: bool,
    accept_loss: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Build a new cluster from the directories that are left of one which lost its majority for good.

    DIR is the data directory of a stopped node, or a log in its quarantine/: give all that are left. They are only read. The
    report says which instances are kept, and which may be lost; with --new-cluster new directories are made, of a new cluster
    that old nodes cannot join. While a majority of undamaged nodes is left there is nothing to recover, and it refuses.

    The exit status is 0 when the report was made, and the cluster if asked for; 1 when that cannot or must not be; 2 when DIR
    cannot be looked at, as while a node runs on it.
    """
    from . import recover as module

    if new_cluster and to is None:
        raise click.UsageError("--new-cluster wants --to DIR: where to make the new directories")
    if new_cluster and as_json and not (yes or dry_run):
        raise click.UsageError("--new-cluster with --json wants --yes: look at the report first, without --new-cluster")
    make = new_cluster and not dry_run
    module.run(module.RecoverOptions(directories, to, nodes or (), make, yes, not no_quarantine, accept_loss, as_json))


def _nodes(text: str) -> object:
    from .recover import parse_nodes

    return parse_nodes(text)


def _parsed(parse: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, str | None], object]:
    """A click callback of a parser that raises ValueError."""

    def callback(ctx: click.Context, param: click.Parameter, text: str | None) -> object:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return callback


def _seeds(text: str) -> object:
    from .sim import parse_seeds

    return parse_seeds(text)


def _faults(text: str) -> object:
    from .sim import parse_faults

    return parse_faults(text)


def _keep(text: str) -> object:
    from .sim import parse_keep

    return parse_keep(text)


@cli.command(
    epilog="""\b
Examples:
  paxos sim --seeds 0:1000 --nodes 3 --minutes 0.5 --faults all
  paxos sim --seeds 0:1000 --faults crash,disk --json
  paxos sim --seeds 17 --trace timeline.json        # one run, and its timeline for https://ui.perfetto.dev
  paxos sim --list-mutants
  paxos sim --mutant reply-before-durable           # a bug put in: exits with 1, because it is caught
  paxos sim --mutant all
  paxos sim --seeds 0:100000 --ray --ray-address auto
"""
)
@click.option("--seeds", metavar="A:B", callback=_parsed(_seeds), default="0:100", show_default=True,
              help="From A up to, not including, B; or one seed, with all that is to be known of it.")  # fmt: skip
@click.option("--nodes", type=click.Choice(["1", "2", "3", "4", "5", "7", "9", "mixed"]), default="3", show_default=True,
              help="Nodes of each cluster; mixed: three or five, as the seed says.")  # fmt: skip
@click.option("--minutes", type=click.FloatRange(0.01, 600), default=0.5, show_default=True,
              help="Simulated minutes with faults, per seed; the peace that follows comes on top.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0.1, 2000), default=30.0, show_default=True,
              help="Operations of the workload a simulated second.")  # fmt: skip
@click.option("--spares", type=click.IntRange(0, 20), default=0, show_default=True,
              help="Nodes beside those; with any, members come, go, are replaced and destroyed all the time.")  # fmt: skip
@click.option("--faults", metavar="all|none|KIND,…", callback=_parsed(_faults), default="all", show_default=True,
              help="Kinds of faults, or groups of them; a wrong name lists them.")  # fmt: skip
@click.option("--keep", metavar="3,7|none", callback=_parsed(_keep), help="With one seed: of its faults only these.")
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes; default: one per core.")
@click.option("--trace", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="With one seed: write its timeline for Perfetto.")  # fmt: skip
@click.option("--no-shrink", is_flag=True, help="Print what a seed found with all of its faults.")
@click.option("--list-mutants", is_flag=True, help="List the bugs that can be put in, and stop.")
@click.option("--mutant", metavar="NAME",
              help="Build a copy with this bug in it, and hunt that: exit status 1 when it is caught. all: every one, and "
              "status 0 when all are caught. Needs the sources, Cython and a C compiler.")  # fmt: skip
@click.option("--ray", is_flag=True, help="On a Ray cluster (pip install 'cypaxos[ray]').")
@click.option("--ray-address", metavar="ADDRESS", help="Of that cluster, or auto; default: one on this machine.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, nothing else.")
def sim(
    seeds: range,
    nodes: str,
    minutes: float,
    rate: float,
    spares: int,
    faults: tuple[str, ...],
    keep: tuple[int, ...] | None,
    jobs: int | None,
    trace: Path | None,
    no_shrink: bool,
    list_mutants: bool,
    mutant: str | None,
    ray: bool,
    ray_address: str | None,
    as_json: bool,
) -> None:
    """Simulate clusters under faults, thousands of seconds a minute, and judge every step.

    Whole nodes run on a simulated clock, network and disk; a seed fixes everything that happens. The exit status is 1 when
    something was found: the seed, the faults that it takes, and the command that shows it again are printed.
    """
    from paxos.testing.campaign import Plan
    from paxos.testing.spread import cores

    from . import sim as module

    if list_mutants:
        module.list_mutants(as_json)
        return
    if mutant is not None and seeds == range(100):
        seeds = range(1)  # not asked for: each mutant has a number of its own
    if len(seeds) != 1 and (keep is not None or trace is not None):
        raise click.UsageError("--keep and --trace are for one seed: --seeds 17")
    if ray_address is not None and not ray:
        raise click.UsageError("--ray-address goes with --ray")
    plan = Plan(
        nodes=0 if nodes == "mixed" else int(nodes), seconds=minutes * 60, kinds=faults, rate=rate, spares=spares
    )
    options = module.SimOptions(
        seeds, plan, keep, jobs or cores(), trace, mutant, ray, ray_address, as_json, not no_shrink
    )
    if not module.simulate(options):
        raise SystemExit(1)


cli.add_command(members)
cli.add_command(member)


def run(arguments: Sequence[str] | None) -> int:
    """Run the command line; every error becomes one line on stderr and an exit status."""
    try:
        given = list(arguments) if arguments is not None else None
        status = cli.main(given, prog_name="paxos", standalone_mode=False)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "paxos"
        message = " ".join(error.format_message().split())
        print(f"{path}: {message} (see {path} --help)", file=sys.stderr)
        return 2
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("paxos: interrupted", file=sys.stderr)
        return 130
    except asyncio.CancelledError:
        print("paxos: terminated", file=sys.stderr)
        return 143
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        return 1
    except (PaxosError, OSError) as error:
        print(f"paxos: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 1
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    # Without its standalone mode click returns what it would have exited with, or what the command returned.
    return status if isinstance(status, int) else 0
