"""Rows that make a cluster of their own: other disks (`power`), other binaries (`upgrade`), another length (`soak`)."""

import contextlib
import dataclasses
import importlib
from collections.abc import Callable

MODULES = ("cluster.power", "cluster.upgrade", "cluster.soak")
APART = []


@dataclasses.dataclass(frozen=True)
class Row:
    """`body(suite)` is the test. `missing(args)`: why it cannot be played here, or None. `prepare()` is called before the
    program enters its namespaces, where there is no network. `asked(args)`: whether it is one of the rows to play."""

    name: str
    body: Callable
    missing: Callable
    prepare: Callable
    asked: Callable


def by_name(name):
    return lambda args: not args.short and not args.soak and any(word in name for word in args.only.split(","))


def apart(name, missing=lambda args: None, prepare=lambda: None, asked=None):
    def take(body):
        APART.append(Row(name, body, missing, prepare, asked or by_name(name)))
        return body

    return take


def rows_apart(args):
    """Those that are asked for."""
    for module in MODULES:
        importlib.import_module(module)
    return [row for row in APART if row.asked(args)]


def klamm_alone(args):
    """Why a row that only klamm can play is not played."""
    return "is klamm's alone" if args.against else None


@contextlib.contextmanager
def running(suite, cluster):
    """The cluster, up. What it wrote is kept if the row fails."""
    kept = True
    try:
        seconds = cluster.start()
        print(f"{cluster.title}, {type(cluster.network).__name__.lower()}, up after {seconds:.1f} s", flush=True)
        yield cluster
        kept = suite.keep
    except BaseException:
        cluster.failed = True
        raise
    finally:
        cluster.end()
        if kept:
            print(f"    logs in {cluster.folder}", flush=True)
        else:
            cluster.remove()
