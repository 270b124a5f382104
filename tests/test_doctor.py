"""betman doctor: every finding is there, and what is wrong is found."""

import errno
import os
import shutil
from collections import namedtuple

import pytest

from lisbet.cli import main
from lisbet.commands.machine import doctor

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
