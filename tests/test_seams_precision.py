"""Mixed precision that this machine cannot compute in is refused, whoever asks for it."""

import pytest
from accelerate.state import AcceleratorState
from conftest import TINY

from lisbet.cli import main
from lisbet.core.errors import ConfigError, ReportedError
from lisbet.distributed.failure_watch import distributed_session


@pytest.fixture
def launched(monkeypatch):
    """Return what sets the variables that a launch file leaves, for a machine without a GPU."""

    def launch(**environment: str) -> None:
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        AcceleratorState._reset_state(reset_partial_state=True)

    yield launch
    AcceleratorState._reset_state(reset_partial_state=True)


def test_fp16_of_a_launch_file_without_a_gpu(dataset, tmp_path, launched, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for asked, message in (("fp16", "which needs a GPU"), ("fp8", "expected no, bf16 or fp16")):
        launched(ACCELERATE_MIXED_PRECISION=asked)
        with pytest.raises(SystemExit) as caught:
            main(["train_model", *TINY, "--epochs=1", "--run_id=a", "data"])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert f"the launch file asks for mixed precision {asked}" in said
        assert message in said
    assert not (tmp_path / "models").exists()


def test_one_of_several_processes_refuses_fp16(launched, monkeypatch):
    """Before they have met: no other process is there to answer."""
    monkeypatch.setattr("lisbet.distributed.failure_watch.GRACE_S", 0)
    for rank, error in (("0", ConfigError), ("1", ReportedError)):
        launched(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2",
                 LISBET_RENDEZVOUS_S="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="1")  # fmt: skip
        with pytest.raises(error), distributed_session("fp16"):
            pass


def test_the_best_precision_of_a_processor_is_float32(launched):
    launched()
    with distributed_session("best") as accelerator:
        assert accelerator.mixed_precision == "no"
