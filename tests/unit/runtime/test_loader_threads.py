"""How many threads the loader takes, on made-up machines and in made-up containers."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support import bundles

loader = bundles.runtime_module("loader")
machine_module = bundles.runtime_module("loading.machine")


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def topology(siblings: dict[int, str], name: str = "core_cpus_list") -> dict[str, str]:
    return {f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": f"{text}\n" for cpu, text in siblings.items()}


HYPERTHREADED = topology({0: "0,4", 1: "1,5", 2: "2,6", 3: "3,7", 4: "0,4", 5: "1,5", 6: "2,6", 7: "3,7"})


@pytest.mark.parametrize(
    ("cpus", "cores"), [(range(8), 4), ([0, 4], 1), ([0, 1], 2), ([0, 1, 5], 2), ([7], 1), (range(4, 8), 4)]
)
def test_hardware_threads_of_a_core_count_once_within_the_affinity(tmp_path: Path, cpus: list[int], cores: int) -> None:
    assert machine_module.physical_cores(tree(tmp_path, HYPERTHREADED), cpus) == cores


def test_older_kernels_call_it_thread_siblings(tmp_path: Path) -> None:
    root = tree(tmp_path, topology({0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}, "thread_siblings_list"))
    assert machine_module.physical_cores(root, range(4)) == 2


def test_a_cpu_without_topology_is_a_core(tmp_path: Path) -> None:
    assert machine_module.physical_cores(tmp_path, range(6)) == 6
    assert machine_module.physical_cores(tree(tmp_path, topology({0: "0-1", 1: "0-1"})), range(4)) == 3


def test_this_machine_has_at_least_one_core() -> None:
    assert machine_module.physical_cores() >= 1


V1 = "4:memory:/box\n3:cpu,cpuacct:/box/inner\n"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, math.inf),
        ({"proc/self/cgroup": "0::/\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, math.inf),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        # The least on the way up counts, wherever it stands.
        (
            {
                "proc/self/cgroup": "0::/pod/box\n",
                "sys/fs/cgroup/pod/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/pod/box/cpu.max": "400000 100000\n",
            },
            2,
        ),
        # The path is the host's; here the container's own cgroup is the mount point.
        ({"proc/self/cgroup": "0::/kubepods/pod1/box\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        ({"proc/self/cgroup": "0::/../../other\n", "sys/fs/cgroup/cpu.max": "300000 100000"}, 3),
        # A hybrid host mounts version 2 beside version 1.
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/unified/cpu.max": "300000 100000"}, 3),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/box/inner/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/box/inner/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/box/inner/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/box/inner/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        # Another controller's hierarchy says nothing about CPUs.
        (
            {
                "proc/self/cgroup": "4:memory:/box\n3:cpuset:/box\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            math.inf,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1 0\n"}, math.inf),
    ],
)
def test_the_quota_is_the_least_on_the_way_up(tmp_path: Path, files: dict[str, str], quota: float) -> None:
    assert machine_module.cpu_quota(tree(tmp_path, files)) == quota


@pytest.mark.parametrize(("quota", "cores"), [(50_000, 1), (100_000, 1), (150_000, 1), (200_000, 2), (900_000, 4)])
def test_a_fraction_of_a_core_is_rounded_down_but_never_to_none(tmp_path: Path, quota: int, cores: int) -> None:
    files = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": f"{quota} 100000\n"}
    assert machine_module.physical_cores(tree(tmp_path, HYPERTHREADED | files), range(8)) == cores


NUMBERS = st.one_of(st.integers(-5, 10**6).map(str), st.sampled_from(["max", "", "-1", "0", "nan", "1e3", "\u0663"]))


@settings(deadline=None)
@given(
    cgroup=st.one_of(
        st.text(max_size=60), st.sampled_from(["0::/", "0::/a/b", "2:cpu:/a", "1:cpu,cpuacct:/a/b\n0::/"])
    ),
    quota=st.tuples(NUMBERS, NUMBERS),
    siblings=st.lists(st.text("0123,-", max_size=4), max_size=4),
    cpus=st.sets(st.integers(0, 7), min_size=1),
)
def test_any_system_tree_gives_a_count_between_one_and_the_cpus(
    tmp_path_factory: pytest.TempPathFactory, cgroup: str, quota: tuple[str, str], siblings: list[str], cpus: set[int]
) -> None:
    root = tree(
        tmp_path_factory.getbasetemp() / "any",
        {
            "proc/self/cgroup": cgroup.encode("utf-8", "replace").decode(),
            "sys/fs/cgroup/cpu.max": " ".join(quota),
            "sys/fs/cgroup/a/cpu.max": " ".join(reversed(quota)),
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": quota[0],
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": quota[1],
            **topology(dict(enumerate(siblings))),
        },
    )
    assert 1 <= machine_module.physical_cores(root, cpus) <= len(cpus)
    assert machine_module.cpu_quota(root) >= 0


@pytest.mark.parametrize(
    ("policy", "threads", "variable", "count"),
    [
        (3, None, None, 3),
        ("physical", 5, None, 5),
        (3, None, "7", 7),
        (3, None, " 7 ", 7),
        (3, None, "", 3),
        (3, 2, "7", 2),
        (3, 2, "nonsense", 2),
    ],
)
def test_the_argument_precedes_the_variable_precedes_the_policy(
    policy: object, threads: int | None, variable: str | None, count: int
) -> None:
    environ = {} if variable is None else {"ORT_INTRA_OP_NUM_THREADS": variable}
    assert machine_module.thread_count(policy, threads, environ) == count


def test_physical_is_what_physical_cores_says() -> None:
    assert machine_module.thread_count("physical", None, {}) == machine_module.physical_cores()


@pytest.mark.parametrize(
    ("policy", "threads", "variable", "message"),
    [
        (3, 0, None, "threads is 0"),
        (3, -2, None, "threads is -2"),
        (3, True, None, "threads is True"),
        (3, "4", None, "threads is '4'"),
        (3, 1.5, None, r"threads is 1\.5"),
        (3, None, "0", "ORT_INTRA_OP_NUM_THREADS is '0'"),
        (3, None, "-1", "ORT_INTRA_OP_NUM_THREADS is '-1'"),
        (3, None, "four", "ORT_INTRA_OP_NUM_THREADS is 'four'"),
        (0, None, None, r"session\.json: threads\.intra_op is 0"),
        ("logical", None, None, r"session\.json: threads\.intra_op is 'logical'"),
        (None, None, None, r"session\.json: threads\.intra_op is None"),
    ],
)
def test_bad_counts_name_their_source(policy: object, threads: object, variable: str | None, message: str) -> None:
    environ = {} if variable is None else {"ORT_INTRA_OP_NUM_THREADS": variable}
    with pytest.raises(loader.ThreadsError, match=message + r"\. Expected a whole number from 1 to 1024"):
        machine_module.thread_count(policy, threads, environ)


def test_a_model_reports_the_threads_it_uses(tmp_path: Path) -> None:
    bundle = bundles.linear().write(tmp_path / "bundle")
    with loader.Model.load(bundle, threads=2) as model:
        assert model.threads == {"intra_op": 2, "inter_op": 1}
