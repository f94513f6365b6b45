import pytest

from tunesmith.supervisor.memory import n_oom_kills

VMSTAT = "nr_free_pages 12\noom_kill 7\npgfault 9\n"


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, 0),
        ({"proc/vmstat": "nr_free_pages 12\n"}, 0),
        ({"proc/vmstat": VMSTAT}, 7),
        ({"proc/vmstat": VMSTAT, "proc/self/cgroup": "0::/a.slice\n"}, 7),
        (
            {
                "proc/vmstat": VMSTAT,
                "proc/self/cgroup": "0::/a.slice/b:c.scope\n",
                "sys/fs/cgroup/a.slice/b:c.scope/memory.events": "low 0\noom 5\noom_kill 3\noom_group_kill 0\n",
            },
            3,
        ),
        (
            {
                "proc/vmstat": VMSTAT,
                "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/y\n0::/\n",
                "sys/fs/cgroup/memory/y/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
            },
            2,
        ),
    ],
)
def test_the_nearest_counter_is_read(tmp_path, files, count):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert n_oom_kills(f"{tmp_path}/") == count


def test_this_machine_counts():
    assert n_oom_kills() >= 0
