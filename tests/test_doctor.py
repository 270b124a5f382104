"""betman doctor: every finding is there, and what is wrong is found."""

import errno
import os
import re
import shutil
import socket
from collections import namedtuple

import pytest
import torch
from conftest import betman

from lisbet.cli import main, parse
from lisbet.commands.machine import doctor
from lisbet.commands.machine.nodes import all_reduce, network
from lisbet.commands.machine.nodes.all_reduce import Reduction
from lisbet.commands.machine.nodes.check import check_nodes
from lisbet.commands.machine.nodes.network import Host
from lisbet.commands.machine.nodes.report import failure_text, report
from lisbet.core.errors import ConfigError, ProcessError, ReportedError

WHATS = ("versions", "devices", "memory", "shared memory", "disk space", "disk speed",
         "file locks", "caches", "container", "SLURM", "W&B", "communication")  # fmt: skip


def test_every_finding_is_printed(tmp_path, capsys):
    main(["doctor", f"--output_path={tmp_path}"])
    said = capsys.readouterr().out
    assert [what for what in WHATS if f"{what}:" not in said] == []
    assert "gloo among 2 processes work" in said
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_ends_with_code_1(tmp_path, monkeypatch, capsys):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12, 10**6))
    monkeypatch.setattr(doctor, "REDUCE", "raise SystemExit('no route to host')")
    with pytest.raises(SystemExit) as caught:
        main(["doctor", f"--output_path={tmp_path}"])
    assert caught.value.code == 1
    said = capsys.readouterr().out
    assert "bad" in said
    assert "choose another --output_path" in said
    assert "no route to host" in said


def test_a_disk_that_fails_is_a_finding(tmp_path, monkeypatch):
    def refuse(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    monkeypatch.setattr(doctor, "REDUCE", "")
    found = {finding.what: finding for finding in doctor.examine(tmp_path)}
    assert found["disk speed"].level == doctor.BAD
    assert found["communication"].level == doctor.OK


# Between processes -------------------------------------------------------------------------------


def host(name: str, rank: int = 0, **more) -> Host:
    values = {"interfaces": {"lo": ["127.0.0.1"], "eth0": [f"10.0.0.{rank + 1}"]},
              "own_address": f"10.0.0.{rank + 1}", "variables": {}}  # fmt: skip
    return Host(rank, name, "CPU", **{**values, **more})


def test_two_processes_find_each_other_and_add_up(tmp_path):
    done = betman("doctor", "--nodes", "--launch=ddp", "--num_processes=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "2 processes on 1 machine found each other" in said
    name = socket.gethostname()
    assert re.findall(rf"process (\d): {name}  CPU, \S+ [\d.:]+\n", said) == ["0", "1"]
    assert re.search(r"all-reduce with gloo: the sums are right, latency [\d,]+ µs", said)
    sizes = {"1 KiB": 2**10, "32 KiB": 2**15, "1 MiB": 2**20, "32 MiB": 2**25}
    rows = re.findall(r"(\d+ [KM]iB) +([\d.,]+) ms +([\d.,]+) MB/s +([\d.,]+) MB/s", said)
    assert [size for size, *_ in rows] == list(sizes)
    for size, time_ms, algorithm, bus in rows[2:]:  # the small ones are rounded too much
        expected = sizes[size] / float(time_ms.replace(",", "")) / 1e3
        assert float(algorithm.replace(",", "")) == pytest.approx(expected, rel=0.02, abs=0.1)
        assert bus == algorithm  # 2 (n - 1) / n is 1 for two
    assert "nothing is known of the network" in said
    assert list(tmp_path.iterdir()) == []


def test_bandwidth_by_hand():
    """A million bytes in half a second; of four processes, each sends 2 · 3/4 of them."""
    found = Reduction(1_000_000, 0.5, 4)
    assert (found.algorithm_bandwidth, found.bus_bandwidth) == (2_000_000, 3_000_000)


def test_a_wrong_sum_is_an_error(monkeypatch):
    monkeypatch.setattr(all_reduce.dist, "get_world_size", lambda: 3)
    monkeypatch.setattr(all_reduce.dist, "get_rank", lambda: 1)
    monkeypatch.setattr(all_reduce.dist, "all_reduce", lambda values: values.add_(4))
    all_reduce.check_sum(torch.device("cpu"))  # 2 + 4 is 1 + 2 + 3
    monkeypatch.setattr(all_reduce.dist, "all_reduce", lambda values: values.add_(5))
    with pytest.raises(ProcessError, match="gave 7 instead of 6"):
        all_reduce.check_sum(torch.device("cpu"))


@pytest.fixture
def one_of_two(monkeypatch):
    """The variables of a launcher, for one process whose partner never comes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def be(rank: int, **more: str) -> None:
        values = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                  "MASTER_PORT": str(port), "LISBET_RENDEZVOUS_S": "1"}  # fmt: skip
        for name, value in (values | more).items():
            monkeypatch.setenv(name, value)

    return be


def test_who_does_not_come_is_named(one_of_two):
    me = socket.gethostname()
    one_of_two(0, SLURM_STEP_NODELIST=f"{me},gpu[07-08]")
    with pytest.raises(ProcessError) as caught:
        check_nodes()
    assert f"process 1 of gpu07, gpu08 did not answer within 1 s; there were those of {me}" in str(
        caught.value
    )


def test_who_does_not_reach_the_first_process_says_why(one_of_two):
    one_of_two(1)
    with pytest.raises(ProcessError, match=r"process 1 on .* at 127\.0\.0\.1:\d+ .*refused"):
        check_nodes()
    one_of_two(1, MASTER_ADDR="nowhere.invalid")
    with pytest.raises(ProcessError, match=r"the name nowhere\.invalid is not known there"):
        check_nodes()


def test_an_interface_that_cannot_work_is_named_with_its_machine():
    assert host("n1").problems("gloo", alone=False) == []
    (text,) = host("n1", own_address="127.0.1.1").problems("gloo", alone=False)
    assert "the name n1 resolves to 127.0.1.1 on its own machine" in text
    assert "export GLOO_SOCKET_IFNAME=eth0" in text
    assert host("n1", own_address="127.0.1.1").problems("gloo", alone=True) == []
    assert host("n1", own_address="127.0.1.1").problems("nccl", alone=False) == []
    for backend, variable in (("gloo", "GLOO_SOCKET_IFNAME"), ("nccl", "NCCL_SOCKET_IFNAME")):
        (text,) = host("n2", variables={variable: "ib0"}).problems(backend, alone=False)
        assert "n2 has no interface" in text
        assert f"export {variable}=eth0" in text
    (text,) = host("n1", variables={"GLOO_SOCKET_IFNAME": "lo"}).problems("gloo", alone=False)
    assert "other machines do not reach" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [("eth", ["eth0"]), ("=eth", []), ("=eth0,lo", ["lo", "eth0"]), ("^lo", ["eth0"]),
     ("^=lo", ["eth0"]), ("ib,et", ["eth0"])],
)  # fmt: skip
def test_interfaces_that_nccl_may_use(text, expected):
    """The forms of NCCL_SOCKET_IFNAME in NCCL's documentation."""
    assert network.nccl_choice(text, host("n1")) == expected


LOG = """\
n1:77:77 [0] NCCL INFO Bootstrap : Using enp225s0f1:10.10.10.2<0>
n1:77:77 [0] NCCL INFO NET/Plugin : No plugin found, using internal implementation
n1:77:79 [0] NCCL INFO NET/IB : Using [0]mlx5_10:1/RoCE [RO]; OOB enp225s0f1:10.10.10.2<0>
n1:77:79 [0] NCCL INFO Using network IB
"""


def test_the_network_of_nccl_is_read_from_its_log():
    used = network.nccl_transport(LOG)
    assert used == "IB [0]mlx5_10:1/RoCE [RO]; OOB enp225s0f1:10.10.10.2<0>"
    hosts = [host(f"n{rank}", rank, infiniband=("mlx5_10",)) for rank in range(2)]
    assert network.advice(hosts, "nccl", used) == ["nothing must be set"]
    (text, _) = network.advice(hosts, "nccl", "Socket [0]eth0:10.0.0.1<0>")
    assert "NCCL uses sockets, though there is InfiniBand (mlx5_10)" in text
    assert "NCCL_IB_HCA=mlx5_10" in text
    assert network.nccl_transport("") == ""


def test_what_can_be_set_when_communication_works():
    two = {"interfaces": {"eth0": ["10.0.0.1"], "ib0": ["10.1.0.1"]}}
    (text,) = network.advice([host("n1", **two), host("n2", 1, **two)], "gloo", "")
    assert "All machines have eth0, ib0; to keep to one of them: export GLOO_SOCKET" in text
    other = {"interfaces": {"eno1": ["10.0.0.2"]}}
    (text,) = network.advice([host("n1"), host("n2", 1, **other)], "nccl", "")
    assert "n1: eth0; n2: eno1" in text
    assert "where NCCL_SOCKET_IFNAME is set, each needs its own" in text


def test_a_failed_all_reduce_names_the_machine_of_the_address_and_what_to_set():
    hosts = [host(f"n{rank + 1}", rank) for rank in range(2)]
    reason = "timed out connecting: SO_ERROR: Connection refused, remote=[10.0.0.2]:4321"
    text = failure_text(hosts, "nccl", {0: "joining", 1: "measuring"}, reason)
    assert "(the address of n2)" in text
    assert "process 0 on n1: joining; process 1 on n2: measuring" in text
    for variable in ("NCCL_SOCKET_IFNAME=eth0", "NCCL_IB_DISABLE=1", "NCCL_DEBUG=INFO"):
        assert f"export {variable}" in text
    assert "export GLOO_SOCKET_IFNAME=eth0" in failure_text(hosts, "gloo", {}, "no answer")


def test_all_processes_are_listed():
    hosts = [host("n1"), host("node2", 1)]
    reductions = [Reduction(8, 0.001, 2), Reduction(2**20, 0.5, 2)]
    lines = report(hosts, [["eth0 10.0.0.1"], []], "nccl", 0.25, reductions, "IB [0]mlx5_0:1/IB")
    assert lines[0] == "2 processes on 2 machines found each other within 0.2 s"
    assert lines[1:3] == [
        "  process 0: n1     CPU, eth0 10.0.0.1",
        "  process 1: node2  CPU, no network: shared memory, or between the GPUs",
    ]
    assert "nccl (IB [0]mlx5_0:1/IB): the sums are right, latency 1,000 µs" in lines[3]
    assert lines[5].split() == ["1", "MiB", "500.00", "ms", "2.1", "MB/s", "2.1", "MB/s"]


def test_one_process_starts_others_in_an_allocation_or_says_how(tmp_path, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        check_nodes()
    typed = [line.split()[1:] for line in str(caught.value).splitlines()
             if line.strip().startswith("betman")]  # fmt: skip
    assert len(typed) == 3
    assert all(parse(words).options.nodes for words in typed)
    (tmp_path / "srun").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/said\nexit $CODE\n')
    (tmp_path / "srun").chmod(0o755)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "3", "CODE": "0"}.items():
        monkeypatch.setenv(name, value)
    assert check_nodes() == []
    said = (tmp_path / "said").read_text()
    assert "--nodes=3 --ntasks=3 --ntasks-per-node=1" in said
    assert said.endswith("-m lisbet doctor --nodes --launch=ddp\n")
    monkeypatch.setenv("CODE", "1")
    with pytest.raises(ReportedError):
        check_nodes()


def test_launching_without_nodes_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["doctor", "--launch=ddp"])
    assert caught.value.code == 2
    assert "--launch needs --nodes" in capsys.readouterr().err
