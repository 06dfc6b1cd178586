"""Memory that is available: limits of containers, and models that do not fit."""

import pytest
import torch

from cig import machine
from cig.errors import ShortMemoryError
from cig.machine import available_memory, need_memory

CPU = torch.device("cpu")


def write(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def test_a_container_of_cgroup_2(tmp_path):
    """1000 may be used and 700 are, of which 300 are files that the system drops on demand; the parent has no limit."""
    group = "sys/fs/cgroup/user/job"
    stat = "anon 400\ninactive_file 300"
    files = {"proc/self/cgroup": "0::/user/job", f"{group}/memory.max": 1000, f"{group}/memory.current": 700}
    parent = {"sys/fs/cgroup/user/memory.max": "max", "sys/fs/cgroup/user/memory.current": 1}
    stats = {f"{group}/memory.stat": stat, "sys/fs/cgroup/user/memory.stat": stat}
    assert available_memory(CPU, write(tmp_path, {**files, **parent, **stats})) == 600


def test_a_container_of_cgroup_1_whose_group_is_mounted_as_the_root(tmp_path):
    files = {"memory.limit_in_bytes": 1000, "memory.usage_in_bytes": 900, "memory.stat": "total_inactive_file 50"}
    root = write(tmp_path, {f"sys/fs/cgroup/memory/{name}": content for name, content in files.items()})
    write(root, {"proc/self/cgroup": "9:cpu:/\n4:memory:/docker/outside"})
    assert available_memory(CPU, root) == 150


def test_the_page_cache_counts_as_available(tmp_path, monkeypatch):
    """As psutil says, which takes it from the system; other processes may change it meanwhile."""
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 19, "free": 1}))
    assert available_memory(CPU, tmp_path) == 19


def test_models_that_do_not_fit(monkeypatch):
    monkeypatch.setattr(machine, "available_memory", lambda device: 10**9)
    need_memory("a model", 10**8, CPU)
    with pytest.raises(ShortMemoryError, match="float16") as told:
        need_memory("a model", 10**13, CPU)
    assert "offload" not in str(told.value), "which a CPU cannot do"
    assert told.value.exit_code == 1
