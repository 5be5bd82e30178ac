"""The cores and memory that this machine can give to a model, within the limits of a container.

Linux reports both exactly (sched_getaffinity, /proc, cgroup v2); other systems get the standard library's estimates.
"""

import os
from dataclasses import dataclass
from pathlib import Path

GIB = 1024**3

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CPUS = Path("/sys/devices/system/cpu")


@dataclass(frozen=True)
class Machine:
    """Physical cores (at least 1) and available memory in bytes."""

    cores: int
    memory_bytes: int


def this_machine() -> Machine:
    return Machine(cores=_cores(), memory_bytes=_memory_bytes())


def _cores() -> int:
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    # Hyper-threads share a core's arithmetic units: a matrix product gains nothing from the second one.
    siblings = {_text(_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list") or str(cpu) for cpu in allowed}
    quota, _, period = _text(_CGROUP / "cpu.max").partition(" ")
    granted = int(quota) // int(period) if quota.isdigit() and period.isdigit() else len(siblings)
    return max(1, min(len(siblings), granted))


def _memory_bytes() -> int:
    available = [
        int(line.split()[1]) * 1024 for line in _text(_MEMINFO).splitlines() if line.startswith("MemAvailable:")
    ]
    if not available:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _text(_CGROUP / "memory.max"), _text(_CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        # The page cache counts as used but is freed under pressure.
        cache = [
            int(line.split()[1])
            for line in _text(_CGROUP / "memory.stat").splitlines()
            if line.startswith("inactive_file ")
        ]
        available.append(int(limit) - int(used) + sum(cache))
    return max(0, min(available))


def _text(path: Path) -> str:
    """The file's text; empty if this kernel has no such file."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
