"""One command on several processes, for real: the same model, and one end for all of them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import (
    TINY,
    betman,
    forking_python,
    names,
    thorough_but,
    walk,
    weight_changes,
    workers,
    write_dataset,
    write_recording,
)

from lisbet.models import model_dir
from lisbet.training.loggers._wandb_files import history
from lisbet.training.logging.events import read_events

STRATEGIES = ["ddp", "deepspeed_zero1", "deepspeed_zero2", "deepspeed_zero3", "fsdp"]
LINE = [*TINY, "--epochs=1", "--warmup_epochs=0", "--dev_ratio=0.5", "--dev_sample=0.3",
        "--save_history", "--hash_samples", "-v"]  # fmt: skip
STEPS = 20


def launched(name: str) -> list[str]:
    return [f"--launch={name}", "--num_processes=2"]


def done(process: subprocess.CompletedProcess) -> subprocess.CompletedProcess:
    assert process.returncode == 0, process.stderr
    return process


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / model_dir.WEIGHTS_LAST, weights_only=True)


def apart(one: dict, other: dict) -> float:
    """The largest change of a tensor, relative to its norm."""
    return max(
        float(change.norm() / value.norm().clamp_min(1e-12))
        for _, value, change in weight_changes(one, other)
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with recordings, annotated, and a model of one process that took 20 steps."""
    place = tmp_path_factory.mktemp("distributed")
    features = names()
    rng = np.random.default_rng(0)
    for number in range(4):
        folder = place / "data" / f"r{number}"
        write_recording(folder, walk(160, features, number), features)
        starts = np.sort(rng.choice(5, 3, replace=False))
        rows = [f"{'sniff' if n % 2 else 'chase'},{n},{n + 0.5}" for n in starts]
        (folder / "annotations.csv").write_text("behavior,start_time,end_time\n" + "\n".join(rows))
    done(betman("train_model", *LINE, "--run_id=one", "data", cwd=place))
    assert len((place / "models/one/sample_hashes.csv").read_text().splitlines()) == 1 + STEPS
    return place


def in_shared_memory() -> set[Path]:
    """Return what runs have in shared memory under a name."""
    return set(Path("/dev/shm").glob("lisbet-*"))


def nothing_stays_in_shared_memory(before: set[Path]) -> bool:
    """Whether no name stays; another test's run may have one for a moment."""
    for _ in range(100):
        if in_shared_memory() <= before:
            return True
        time.sleep(0.1)
    return False


def same_as_one(place: Path, run_id: str) -> None:
    one, run = place / "models" / "one", place / "models" / run_id
    assert apart(weights(one), weights(run)) < 1e-5
    for name in ("sample_hashes.csv",):
        assert (run / name).read_bytes() == (one / name).read_bytes()
    for file in ("training_history.csv",):
        ours, theirs = (np.genfromtxt(path / file, delimiter=",", names=True).tolist()
                        for path in (one, run))  # fmt: skip
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_model_on_every_strategy(strategy, place):
    said = done(betman("train_model", *LINE, *launched(strategy), f"--run_id={strategy}", "data",
                       cwd=place))  # fmt: skip
    same_as_one(place, strategy)
    assert "16 windows of each task = 2 processes × 1 micro-batches × 8" in said.stderr
    assert said.stderr.count("epoch 1/1") == 1
    assert said.stdout.count("model written to") == 1
    assert "Warning" not in said.stderr
    run = place / "models" / strategy
    config = yaml.safe_load((run / "run_config.yml").read_text())
    assert config["processes"]["count"] == 2
    assert "launch" not in config["options"]
    # The checkpoint alone gives the same file, on one process.
    before = (run / model_dir.WEIGHTS_LAST).read_bytes()
    (run / model_dir.WEIGHTS_LAST).unlink()
    done(betman("consolidate_checkpoint", run, cwd=place))
    after = weights(run)
    (run / model_dir.WEIGHTS_LAST).write_bytes(before)
    assert all(torch.equal(value, after[key]) for key, value in weights(run).items())


def test_accumulated_passes_make_the_same_model(place):
    done(betman("train_model", *LINE, "--micro_batch_size=8", "--run_id=passes", "data", cwd=place))
    same_as_one(place, "passes")


def test_torchrun_and_accelerate_launch_do_the_same(place):
    root = Path(__file__).parents[1]
    forked = os.environ | {"PYTHON_EXEC": forking_python()}
    for run_id, launcher in {
        "torchrun": ["torch.distributed.run", "--nproc_per_node=2"],
        "accelerate": ["accelerate.commands.accelerate_cli", "launch", "--num_processes=2",
                       "--config_file", str(root / "launch" / "ddp.yaml")],
    }.items():  # fmt: skip
        done(subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "lisbet", "train_model", *LINE,
             "--micro_batch_size=4", f"--run_id={run_id}", "data"],
            cwd=place, env=forked if run_id == "accelerate" else None,
            capture_output=True, text=True, timeout=300, check=False,
        ))  # fmt: skip
        same_as_one(place, run_id)


def test_one_process_reads_for_all_of_its_machine(place):
    """The second one cannot read, and is slow; it trains on the first one's copy, in memory."""
    script = place / "reads.py"
    script.write_text(
        "import os, time\nimport lisbet.training.datasets.banks as datasets\n"
        "from lisbet.training.datasets.batch_buffer import BatchBuffer\n"
        "batch = BatchBuffer.batch\n"
        "def slow(*rest):\n    time.sleep(0.2)\n    return batch(*rest)\n"
        "if os.environ.get('RANK') == '1':\n"
        "    datasets.load_records, BatchBuffer.batch = None, slow\n"
    )
    before = in_shared_memory()
    done(betman("train_model", *LINE, *launched("ddp"), "--run_id=shared", "data", cwd=place,
                TEST_PATCH=str(script)))  # fmt: skip
    same_as_one(place, "shared")
    row = read_events(place / "models" / "shared" / "events.jsonl")[-1]
    assert 0.1 < row["rank_skew_s"] < row["step_s"]  # though all take the same time for a step
    assert nothing_stays_in_shared_memory(before)


@pytest.mark.parametrize("strategy", thorough_but("deepspeed_zero3", STRATEGIES))
def test_frozen_backbones_and_supervised_tasks(strategy, place):
    """On a pretrained backbone that is kept: all tasks at once, on one and on two processes."""
    line = [*TINY, "--epochs=1", "--train_sample=0.2", "--annot_format=csv_events", "--fps=30",
            "--task_ids=cons,order,shift,warp,multiclass,multilabel", "--clip_grad_norm=0.5",
            "--load_backbone_weights=models/one/weights/weights_last.pt",
            "--freeze_backbone_weights", "--warmup_epochs=0", "--embedding_every=1", "--wandb",
            "--wandb_mode=offline", "data"]  # fmt: skip
    if not (place / "models" / "mixed").exists():
        done(betman("train_model", *line, "--run_id=mixed", cwd=place))
    done(betman("train_model", *line, *launched(strategy), f"--run_id=mixed-{strategy}", cwd=place))
    one, two = weights(place / "models/mixed"), weights(place / "models" / f"mixed-{strategy}")
    assert apart(one, two) < 1e-5
    start = weights(place / "models" / "one")
    kept = [key for key in one if key.startswith("backbone.")]
    assert kept
    assert all(torch.equal(two[key], start[key]) for key in kept)
    # One process writes the record, and draws the pictures of the gathered weights.
    shown = {name: sorted(path.name for path in (place / "models" / name / "pictures").iterdir())
             for name in ("mixed", f"mixed-{strategy}")}  # fmt: skip
    assert shown["mixed"] == shown[f"mixed-{strategy}"]
    assert shown["mixed"] == ["confusion_multiclass.png", "confusion_multilabel.png",
                              "embeddings.png"]  # fmt: skip
    (file,) = (place / "models" / f"mixed-{strategy}" / "wandb").rglob("*.wandb")
    assert history(file)[-1]["confusion_multiclass/_type"] == "image-file"


@pytest.mark.parametrize("preset", ["lstm-base"])
def test_other_backbones_shard_as_a_whole(preset, place):
    line = ["train_model", "--window_size=12", "--batch_size=16", "--train_sample=0.1",
            f"--backbone_preset={preset}", "--epochs=1", "data"]  # fmt: skip
    done(betman(*line, f"--run_id={preset}", cwd=place))
    done(betman(*line, f"--run_id={preset}-fsdp", *launched("fsdp"), cwd=place))
    one, two = (weights(place / "models" / f"{preset}{end}") for end in ("", "-fsdp"))
    assert apart(one, two) < 1e-5


@pytest.mark.parametrize("strategy", thorough_but("fsdp", ["ddp", "deepspeed_zero2", "fsdp"]))
def test_mixed_precision_keeps_float32_weights(strategy, place):
    done(betman("train_model", *LINE, *launched(strategy), "--mixed_precision=bf16",
                f"--run_id=bf16-{strategy}", "data", cwd=place))  # fmt: skip
    found = weights(place / "models" / f"bf16-{strategy}")
    assert {value.dtype for value in found.values()} == {torch.float32}
    # Trained in bf16, so away from the float32 run, but not far; and not rounded to bf16.
    assert 1e-5 < apart(weights(place / "models" / "one"), found) < 5e-2
    key = "backbone.frame_embedder.weight"
    assert not torch.equal(found[key], found[key].bfloat16().float())
    config = yaml.safe_load((place / "models" / f"bf16-{strategy}" / "run_config.yml").read_text())
    assert config["options"]["mixed_precision"] == "bf16"


def test_inference_is_shared_out_and_gives_the_same_files(place):
    model = ["models/one/model_config.yml", "models/one/weights/weights_last.pt"]
    done(betman("export_embedder", *model, cwd=place))
    embedder = ["models/one-embedder/model_config.yml",
                "models/one-embedder/weights/weights_last.pt"]  # fmt: skip
    files = {}
    for where, words in (("one", []), ("two", launched("ddp"))):
        said = done(betman("compute_embeddings", *words, f"--output_path={where}", "data",
                           *embedder, cwd=place))  # fmt: skip
        assert said.stdout.count("embeddings of 4 recordings written") == 1
        files[where] = {
            file.relative_to(place / where): file.read_bytes()
            for file in (place / where).rglob("*.csv")
        }
    assert len(files["one"]) == 4
    assert files["one"] == files["two"]
    one, two = ((place / where / "embeddings/model.yml").read_bytes() for where in files)
    assert one == two


# Ends -------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def by_hand(
    rank: int, port: int, *words: str, cwd: Path, real: bool = False, **more: str
) -> subprocess.Popen:
    """Start one of two processes with no launcher that would end it."""
    environment = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port), **more}  # fmt: skip
    return subprocess.Popen(
        [sys.executable if real else forking_python(), "-m", "lisbet", *words],
        cwd=cwd, env={**os.environ, **environment}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come")


ENDLESS = ["train_model", *TINY, "--epochs=2000", "data"]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all(victim, place):
    """Without a launcher that would notice: the processes notice by themselves."""
    port, run_id = free_port(), f"killed{victim}"
    pair = [by_hand(rank, port, *ENDLESS, f"--run_id={run_id}", cwd=place) for rank in (0, 1)]
    wait_for(place / "models" / run_id / model_dir.WEIGHTS_LAST)
    pair[victim].kill()
    started = time.monotonic()
    _, said = pair[1 - victim].communicate(timeout=60)
    pair[victim].communicate()
    assert time.monotonic() - started < 30
    assert pair[1 - victim].returncode == 1
    assert "lost contact with another process" in said
    assert "defect" not in said


@pytest.mark.parametrize(
    ("victim", "memory"), [(0, "all"), (1, "48KB")], ids=["filling the bank", "moving it"]
)
def test_a_process_killed_while_it_reads_a_store(victim, memory, place):
    """Both ends: nothing stays in shared memory, and the run goes on to the same model."""
    script = place / "dies_reading.py"
    script.write_text(
        "import os, signal\nfrom lisbet.data.zarr.store import Store\n"
        f"read, left = Store.read, [{0 if memory == 'all' else 12}]\n"
        "def dies(self, first, last):\n"
        "    if not left[0]:\n        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    left[0] -= 1\n    return read(self, first, last)\n"
        f"if os.environ['RANK'] == '{victim}':\n    Store.read = dies\n"
    )
    if not (place / "parts.zarr").exists():
        write_dataset(place / "parts", [60 + n for n in range(20)])
        done(betman("convert_dataset", "--workers=1", "parts", "parts.zarr", cwd=place))
    run_id = f"dies_reading{victim}"
    line = [*LINE, "--data_format=zarr", f"--bank_memory={memory}", "--checkpoint_every=3steps"]
    done(betman(*["train_model", *line, f"--run_id=whole{victim}", "parts.zarr"], cwd=place))
    port, before = free_port(), in_shared_memory()
    words = ["train_model", *line, f"--run_id={run_id}", "parts.zarr"]
    pair = [by_hand(rank, port, *words, cwd=place, TEST_PATCH=str(script)) for rank in (0, 1)]
    _, said = pair[1 - victim].communicate(timeout=60)
    pair[victim].communicate()
    assert (pair[victim].returncode, pair[1 - victim].returncode) == (-signal.SIGKILL, 1)
    assert "lost contact with another process" in said
    assert nothing_stays_in_shared_memory(before)
    done(betman("train_model", *line, *launched("ddp"), f"--run_id={run_id}", "--resume",
                "parts.zarr", cwd=place))  # fmt: skip
    whole, killed = (place / "models" / name for name in (f"whole{victim}", run_id))
    assert apart(weights(whole), weights(killed)) < 1e-5
    hashes = "sample_hashes.csv"
    assert (whole / hashes).read_bytes() == (killed / hashes).read_bytes()


def test_a_killed_process_is_named_by_the_launcher(place):
    command = [forking_python(), "-m", "lisbet", *ENDLESS, *launched("ddp"), "--run_id=named"]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as job:
        wait_for(place / "models" / "named" / model_dir.WEIGHTS_LAST)
        os.kill(workers(job, "named")[-1], signal.SIGKILL)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 1
    assert "was ended by signal SIGKILL" in said
    assert "Traceback" not in said


def test_a_process_that_hangs_is_given_up(place):
    port = free_port()
    pair = [by_hand(rank, port, *ENDLESS, "--run_id=hangs", cwd=place, real=rank == 1)
            for rank in (0, 1)]  # fmt: skip
    wait_for(place / "models" / "hangs" / model_dir.WEIGHTS_LAST)
    pair[1].send_signal(signal.SIGSTOP)
    try:
        _, said = pair[0].communicate(timeout=60)
    finally:
        pair[1].kill()
        pair[1].communicate()
    assert pair[0].returncode == 1
    assert "process 1 fell silent" in said


def test_what_fails_on_one_process_is_said_once(place):
    """The second one finds no weights; the first one must not wait for it."""
    port = free_port()
    first = by_hand(0, port, *ENDLESS, "--run_id=alone", cwd=place)
    weights = "--load_backbone_weights=nowhere.pt"
    second = by_hand(1, port, *ENDLESS, weights, "--run_id=alone", cwd=place)
    (_, one), (_, other) = first.communicate(timeout=60), second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (2, 2)
    assert "nowhere.pt: no such file" in other
    assert "error" not in one
    assert not (place / "models" / "alone").exists()


def test_processes_that_do_not_find_each_other(place):
    lonely = by_hand(
        0, free_port(), *ENDLESS, "--run_id=lonely", cwd=place, LISBET_RENDEZVOUS_S="3"
    )
    _, said = lonely.communicate(timeout=60)
    assert lonely.returncode == 1
    assert "did not find each other within 3 s" in said
    assert "--main_process_ip" in said
    assert "Traceback" not in said


def test_a_machine_that_does_not_answer(place):
    said = betman("train_model", *LINE, *launched("ddp"), "--num_machines=2", "--machine_rank=1",
                  "--main_process_ip=127.0.0.1", f"--main_process_port={free_port()}", "data",
                  cwd=place, LISBET_RENDEZVOUS_S="3")  # fmt: skip
    assert said.returncode == 1
    assert "process 1 waited at 127.0.0.1" in said.stderr
    assert "Traceback" not in said.stderr
    assert len(said.stderr.splitlines()) < 8


def test_tasks_of_srun_are_processes(place):
    """srun without a launcher: what SLURM says is enough."""
    job = str(free_port())
    pair = []
    for rank in (0, 1):
        slurm = {"SLURM_JOB_ID": job, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2",
                 "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0",
                 "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_TASKS_PER_NODE": "2",
                 "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}  # fmt: skip
        pair.append(subprocess.Popen(
            [forking_python(), "-m", "lisbet", "train_model", *LINE, "--run_id=srun", "data"],
            cwd=place, env={**os.environ, **slurm}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
    for process in pair:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    same_as_one(place, "srun")


def test_a_command_for_one_is_run_by_one(place):
    """Under a launcher, what does not share out is done by the first process alone."""
    said = done(subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m", "lisbet",
         "model_info", "models/one/model_config.yml"],
        cwd=place, env=os.environ | {"PYTHON_EXEC": forking_python()}, capture_output=True,
        text=True, timeout=300, check=False,
    ))  # fmt: skip
    assert said.stdout.count("model:  ") == 1


# Machines ---------------------------------------------------------------------------------------


@pytest.fixture
def machines():
    """Two hosts: network namespaces with names and addresses of their own, joined by a cable."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    tag = f"lb{os.getpid() % 10000}"
    spaces = [f"{tag}-{number}" for number in (1, 2)]

    def ip(*words: str) -> subprocess.CompletedProcess:
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)

    for space in spaces:
        if ip("netns", "add", space).returncode:
            pytest.skip("this machine does not allow network namespaces")
    try:
        ip("link", "add", f"{tag}a", "type", "veth", "peer", "name", f"{tag}b")
        for number, (space, end) in enumerate(zip(spaces, "ab", strict=True), start=1):
            ip("link", "set", f"{tag}{end}", "netns", space)
            ip("-n", space, "addr", "add", f"10.77.0.{number}/24", "dev", f"{tag}{end}")
            ip("-n", space, "link", "set", f"{tag}{end}", "up")
            ip("-n", space, "link", "set", "lo", "up")
        yield spaces
    finally:
        for space in spaces:
            ip("netns", "delete", space)


@pytest.mark.parametrize(
    ("strategy", "each"),
    thorough_but(("ddp", 2), [("ddp", 1), ("ddp", 2), ("deepspeed_zero2", 1)]),
)
def test_two_machines_train_the_same_model(strategy, each, place, machines):
    run_id = f"machines-{strategy}-{each}"
    jobs = []
    for rank, space in enumerate(machines):
        # A host's own name resolves to its own address only, as on a cluster.
        hosts = place / f"hosts{rank}"
        hosts.write_text(f"127.0.0.1 localhost\n10.77.0.{rank + 1} machine{rank}\n")
        inside = f'mount --bind {hosts} /etc/hosts && hostname machine{rank} && exec "$@"'
        jobs.append(subprocess.Popen(
            ["ip", "netns", "exec", space, "unshare", "-m", "-u", "sh", "-c", inside, "sh",
             sys.executable, "-m", "lisbet", "train_model", *LINE, f"--launch={strategy}",
             f"--num_processes={2 * each}", "--num_machines=2", f"--machine_rank={rank}",
             "--main_process_ip=10.77.0.1", f"--run_id={run_id}", "data"],
            cwd=place, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ))  # fmt: skip
    outputs = [job.communicate(timeout=120) for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], outputs
    same_as_one(place, run_id)
    assert "model written" in outputs[0][0]
    assert outputs[1] == ("", outputs[1][1])
    assert "epoch 1/1" not in outputs[1][1]


# Bad input --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--launch=dpp"], "no launch configuration 'dpp': did you mean 'ddp'?"),
        (["--launch=ddp", "--num_processes=4096"], "at most"),
        (["--launch=ddp", "--num_machines=2"], "--num_machines needs --machine_rank"),
        (["--num_processes=2"], "--num_processes needs --launch"),
        (["--launch=ddp", "--machine_rank=1"], "numbered from 0"),
        (["--launch=single", "--num_processes=2"], "is for one process"),
        (["--launch=data"], "no launch configuration 'data'"),
        (["--launch=odd.yaml"], "it has no distributed_type"),
        (["--launch=broken.yaml"], "broken.yaml"),
        (["--batch_size=15", "--launch=ddp", "--num_processes=2"], "that do: 14, 16"),
        (["--batch_size=16", "--micro_batch_size=5"], "the nearest that do: 4, 8"),
        (["--launch=fp16.yaml", "--num_processes=2", "--mixed_precision=bf16"], "contradicts"),
        (["--launch=strange.yaml", "--num_processes=2"], "unknown"),
    ],
)
def test_refused(words, message, tmp_path):
    write_dataset(tmp_path / "data", [30, 40])
    (tmp_path / "odd.yaml").write_text("num_processes: 2\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    shipped = (Path(__file__).parents[1] / "launch" / "ddp.yaml").read_text()
    (tmp_path / "fp16.yaml").write_text(shipped.replace('"no"', "fp16"))
    (tmp_path / "strange.yaml").write_text(shipped + "colour: red\n")
    line = [word for word in TINY if "batch" not in word]
    said = betman("train_model", *line, *words, "--run_id=a", "data", cwd=tmp_path)
    assert said.returncode == 2
    assert message in said.stderr
    assert said.stderr.count("betman: error") == 1
    assert "Traceback" not in said.stderr
    assert not (tmp_path / "models").exists()


def test_a_taken_port_is_left_to_its_owner(place):
    with socket.socket() as owner:
        owner.bind(("", 0))
        owner.listen()
        port = owner.getsockname()[1]
        words = [*launched("ddp"), f"--main_process_port={port}", "--run_id=port", "--dry_run"]
        said = done(betman("train_model", *LINE, *words, "data", cwd=place))
        assert f"port {port} is taken; using" in said.stderr
        words += ["--num_machines=2", "--machine_rank=0", "--main_process_ip=127.0.0.1"]
        said = betman("train_model", *LINE, *words, "data", cwd=place)
        assert said.returncode == 2
        assert "pass another --main_process_port on all machines" in said.stderr


def test_deepspeed_that_is_missing(tmp_path, monkeypatch, capsys):
    from lisbet.cli import main
    from lisbet.distributed import environment

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit) as caught:
        main(["train_model", "--launch=deepspeed_zero1", "data"])
    assert caught.value.code == 2
    assert "pip install 'lisbet[deepspeed]'" in capsys.readouterr().err


def test_a_launcher_in_each_task_of_srun_is_refused(tmp_path):
    slurm = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"}
    said = betman("train_model", "--launch=ddp", "data", cwd=tmp_path, **slurm)
    assert said.returncode == 2
    assert "--ntasks-per-node=1" in said.stderr


def test_inference_says_what_is_wrong_once(place):
    said = betman("compute_embeddings", *launched("ddp"), "data", "nope.yml", "nope.pt", cwd=place)
    assert said.returncode == 2
    assert said.stderr.count("betman: error") == 1


def test_the_launch_configurations_are_listed(tmp_path):
    said = done(betman("launch_configs", cwd=tmp_path)).stdout
    for name in ("single", "cpu", *STRATEGIES):
        assert f"\n{name} " in f"\n{said}"
    assert max(map(len, said.splitlines()[:-4])) <= 80


def test_the_launch_configurations_are_in_the_wheel(tmp_path):
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path],
                   cwd=root, check=True, capture_output=True)  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    shipped = {path.name: path.read_bytes() for path in (root / "launch").glob("*.yaml")}
    found = (tmp_path / "site" / "lisbet" / "launch_files").glob("*.yaml")
    assert {path.name: path.read_bytes() for path in found} == shipped
    scripts = (tmp_path / "site" / "lisbet" / "launch_files" / "slurm").iterdir()
    assert {path.name for path in scripts} == {"train.sbatch", "preprocess.sbatch", "array.sbatch"}
    listed = subprocess.run([sys.executable, "-m", "lisbet", "launch_configs"], check=True,
                            capture_output=True, text=True, cwd=tmp_path / "site")  # fmt: skip
    assert "site/lisbet/launch_files" in listed.stdout
