"""Options that are printed read back as they were: in run_config.yml, scripts and messages."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lisbet import augment
from lisbet.cli import parse
from lisbet.cli.commands import COMMANDS, Command
from lisbet.core.errors import ConfigError, LisbetError
from lisbet.core.option_text import plain_number
from lisbet.core.option_values import (
    Hours,
    Interval,
    Renames,
    Scale,
    Selection,
    Settings,
    Size,
    TaskData,
)
from lisbet.core.yaml_files import write_yaml
from lisbet.options import Options, SlurmScriptOptions, TrainingOptions, TrainOptions
from lisbet.options._base import READER_NAMES, TASK_NAMES

# Text as argv gives it: no NUL, no lone surrogates; words of a list have no commas and no ends of
# white space.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
WORD = TEXT.map(lambda t: "".join(c for c in t if c not in ",;:=").strip()).filter(
    lambda t: t not in ("", "*")
)
DIGITS = st.integers(0, 10**10).map(str) | st.tuples(
    st.integers(0, 10**9), st.text("0123456789", min_size=1, max_size=20)
).map(lambda parts: f"{parts[0]}.{parts[1]}")  # fmt: skip
FLOAT = st.floats(1e-300, 1e300).map(repr)


def words(item: st.SearchStrategy[str], most: int = 3) -> st.SearchStrategy[str]:
    return st.lists(item, min_size=1, max_size=most, unique=True).map(",".join)


def three(part: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*[st.just("*") | part] * 3).map(";".join)


PAIR = st.tuples(WORD, WORD).map(":".join)
KEY = st.from_regex(r"[a-z_]{1,8}", fullmatch=True)
SETTING = st.tuples(KEY, KEY, WORD | FLOAT).map(lambda t: f"{t[0]}.{t[1]}={t[2]}")
NUMBERS = st.lists(st.integers(0, 99), min_size=1, max_size=3).map(str)  # [1, 2]
TEXTS = {
    Interval: st.tuples(DIGITS, st.sampled_from(["ep", "steps", "min"])).map("".join),
    Size: st.just("all")
    | st.tuples(DIGITS, st.sampled_from(["KB", "MB", "GiB", "gb"])).map("".join),
    Scale: st.sampled_from(["minmax", "robust"])
    | st.lists(FLOAT | DIGITS, min_size=2, max_size=3).map("x".join),
    Hours: st.tuples(st.integers(0, 99999), st.integers(0, 59)).map(lambda t: f"{t[0]}:{t[1]:02}"),
    Selection: three(words(WORD)),
    Renames: three(words(PAIR)),
    Settings: st.just("") | words(SETTING),
    TaskData: st.just("") | words(st.tuples(KEY, NUMBERS).map(":".join)),
}
SHARE = st.floats(0, 1, exclude_min=True).map(repr)
AUGMENTATION = (
    st.tuples(st.sampled_from(["all_perm_id", "all_perm_ax", "blk_perm_id"]), SHARE).map(
        lambda t: f"{t[0]}:p={t[1]}"
    )
    | SHARE.map("blk_perm_id:frac={}".format)
    | FLOAT.map("gauss_jitter:sigma={}".format)
    | st.tuples(st.floats(0, 180), st.sampled_from(["truncate", "rescale", "none"])).map(
        lambda t: f"rotation:max_angle={t[0]!r}:mode={t[1]}"
    )
    | SHARE.map("kp_ablation:pB={}".format)
)


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_value_reads_back(kind, data):
    try:
        value = kind.parse(data.draw(TEXTS[kind]))
    except ValueError:
        return  # refused
    assert kind.parse(str(value)) == value


@pytest.mark.parametrize(
    ("kind", "text", "printed"),
    [
        (Interval, "1000000steps", "1000000steps"),
        (Interval, "123456789ep", "123456789ep"),
        (Interval, "0.00001min", "0.00001min"),
        (Interval, "999999999.9999999999min", "1000000000min"),
        (Size, "1000GB", "1048576000KB"),
        (Size, "999999999GB", "1048575998951424KB"),
        (Size, "1.000000001GB", "1048576.0009765625KB"),
        (Size, "512MB", "524288KB"),
        (Scale, "1e15x1e-5", "1000000000000000x0.00001"),
        (Scale, "1024.123456789012x570", "1024.123456789012x570"),
    ],
)
def test_large_and_small_numbers(kind, text, printed):
    value = kind.parse(text)
    assert str(value) == printed
    assert kind.parse(printed) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Size, "0.0001KB"), (Size, "9999999999999999GB"), (Size, "1\u212aB"),  # Kelvin, no K
        (Interval, "1000000001steps"), (Interval, "0.5steps"), (Interval, "0.0min"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(kind, text):
    with pytest.raises(ValueError, match="expected such as"):
        kind.parse(text)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_plain_numbers(value):
    assert float(plain_number(value)) == value
    assert "e" not in plain_number(value)


@given(words(AUGMENTATION))
@settings(deadline=None)
def test_augmentations_read_back(text):
    value = augment.parse(text)
    assert augment.parse(augment.as_text(value)) == value


# A whole set of options -------------------------------------------------------------------------

NUMBER = st.integers(1, 10**6).map(str)
PATH = WORD.map(lambda name: f"folder/{name}")
OPTIONS = {
    "data_path": words(PATH, 2),
    "data_format": st.sampled_from(list(READER_NAMES)),
    "annot_format": st.just("boris"),
    "bank_memory": TEXTS[Size],
    "task_ids": words(st.sampled_from(list(TASK_NAMES))),
    "task_data": st.sampled_from(["", "cons:[0]"]),
    "data_augmentation": words(AUGMENTATION),
    "window_size": st.just("200"),
    "window_offset": st.integers(0, 199).map(str),
    "backbone_preset": st.just("lstm-base"),
    "emb_dim": NUMBER, "num_layers": NUMBER, "num_heads": NUMBER, "hidden_dim": NUMBER,
    "head_type": st.sampled_from(["mlp", "linear"]),
    "set": words(st.tuples(KEY, WORD | FLOAT).map(lambda t: f"backbone.{t[0]}={t[1]}")),
    "load_backbone_weights": TEXT, "freeze_backbone_weights": st.sampled_from(["True", "False"]),
    "epochs": NUMBER, "batch_size": NUMBER, "micro_batch_size": NUMBER,
    "learning_rate": SHARE, "weight_decay": FLOAT, "warmup_epochs": NUMBER,
    "embedding_noise": SHARE,
    "schedule": st.just("cosine"), "warmup_share": st.just("0.1"),
    "clip_grad_norm": FLOAT, "train_sample": SHARE, "dev_ratio": SHARE, "dev_sample": SHARE,
    "dev_split": st.sampled_from(["recordings", "time"]), "dev_recordings": words(WORD),
    "seed": st.integers(0, 2**63 - 1).map(str),
    "mixed_precision": st.sampled_from(["no", "bf16", "fp16", "best"]),
    "tf32": st.sampled_from(["True", "False"]), "compile": st.sampled_from(["True", "False"]),
    "run_id": st.sampled_from(["001", "1e5", "None", "null", "yes", "0x1F", "1_000", "2024-01-01"])
    | st.from_regex(r"[A-Za-z0-9_-]{1,12}", fullmatch=True).filter(lambda t: t.strip("-_")),
    "output_path": TEXT, "save_history": st.just("True"),
    "save_weights": st.sampled_from(["last", "all"]), "overwrite": st.just("False"),
    "resume": st.just("False"), "checkpoint_every": TEXTS[Interval], "keep_checkpoints": NUMBER,
    "max_time": TEXTS[Hours], "on_save_error": st.just("continue"), "skip_nonfinite": NUMBER,
    "debug_step": st.none(), "quiet": st.just("True"), "hash_samples": st.just("True"),
    "log_every": NUMBER,
    "embedding_every": NUMBER, "tensorboard": st.just("True"), "wandb": st.just("True"),
    "loggers": st.just("tensorboard"),
    "wandb_project": TEXT, "wandb_entity": TEXT, "wandb_group": TEXT, "wandb_tags": words(WORD),
    "wandb_notes": TEXT, "wandb_mode": st.just("offline"), "wandb_artifact": st.just("True"),
    "dry_run": st.just("True"), "verbose": st.just("2"),
    "data_filter": words(WORD), "data_scale": TEXTS[Scale], "outside": st.just("missing"),
    "filter_match": st.just("substring"), "min_confidence": SHARE, "max_gap": NUMBER,
    "fps_override": st.sampled_from(["True", "False"]), "time_gaps": st.just("missing"),
    "select_coords": TEXTS[Selection], "rename_coords": TEXTS[Renames], "fps": FLOAT,
    "fps_scaling": st.floats(0.1, 100).map(repr), "subject": TEXT, "event_slack": NUMBER,
    "tracking_pattern": TEXT, "flat": st.just("True"), "file_per_individual": st.just("False"),
    "preset": st.sampled_from(["published", "social"]), "probe_every": NUMBER,
    "condition_input": st.sampled_from(["True", "False"]),
    "launch": TEXT, "num_processes": NUMBER, "num_machines": st.just("1"),
    "machine_rank": st.just("0"), "main_process_ip": TEXT, "main_process_port": st.just("29500"),
}  # fmt: skip
NEEDED = {"data_path", "wandb", "launch"}  # the others need these
FEW = {"max_examples": 150, "deadline": None}


def test_every_option_of_training_is_tried():
    assert OPTIONS.keys() == TrainOptions.model_fields.keys() - {"config"}


@given(
    given_options=st.fixed_dictionaries(
        {name: OPTIONS[name] for name in NEEDED},
        optional={name: texts for name, texts in OPTIONS.items() if name not in NEEDED},
    )
)
@settings(**FEW, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(
    given_options={"data_path": "my mice/a b", "wandb": "True", "launch": "ddp",
                   "wandb_notes": "\x85\ufeff \n"}
)  # fmt: skip
@example(
    given_options={"data_path": "a", "wandb": "True", "launch": "ddp", "dev_recordings": "1.0,no"}
)
def test_a_run_config_reads_back(given_options, tmp_path):
    command = COMMANDS["train_model"]
    try:
        options = command.check(given_options)
    except LisbetError:
        return  # such as an overlap of data paths
    path = tmp_path / "run_config.yml"
    write_yaml(path, {"options": options.model_dump(mode="json")})
    assert read(command, path) == options


def read(command: Command, path: Path) -> Options:
    return command.check({"config": str(path)}).model_copy(update={"config": None})


def test_the_options_of_a_script_read_back(tmp_path):
    command = COMMANDS["slurm_script"]
    for seeds in ({}, {"seeds": "1,2,3"}):
        options = command.check({"data_path": "mice", "run_id": "a", **seeds})
        assert isinstance(options, SlurmScriptOptions)
        path = tmp_path / "options.yml"
        write_yaml(path, options.model_dump(mode="json", exclude={"seed"}))  # or the seeds
        assert read(command, path) == options


JOB = {
    "nodes": "2", "gpus_per_node": "0", "processes_per_node": "3", "cpus_per_task": "16",
    "mem": "32G", "time": "12:30:00", "partition": "0x10", "account": "1e3", "qos": "no",
    "job_name": "007", "seeds": "1,2", "container": "a.sif", "bind": "null", "venv": "2024-01-01",
    "launch": "on", "rate": "1e3", "gres": "tmpdisk:200", "constraint": "a100|h100",
    "mail": "a.b@lab.org", "sbatch": "--exclusive --reservation=course",
    "setup": "module load a; b",
}  # fmt: skip


def test_every_option_of_a_job_reads_back(tmp_path):
    """Also as a person writes it, without quotes: then YAML reads 12:30:00 as 45000."""
    command = COMMANDS["slurm_script"]
    assert JOB.keys() == command.fields.keys() - TrainOptions.model_fields.keys() | {"launch"}
    path = tmp_path / "options.yml"
    for name, value in JOB.items():
        given = {"data_path": "mice", "run_id": "a", name: value}
        given |= {"container": "a.sif"} if name == "bind" else {}
        options = command.check(given)
        write_yaml(path, options.model_dump(mode="json", exclude={"seed"}))
        assert read(command, path) == options
        if value != "null":
            path.write_text("".join(f"{key}: {text}\n" for key, text in given.items()))
            assert read(command, path) == options


# What cannot be written so is refused ------------------------------------------------------------


@pytest.mark.parametrize("text", ["mice,2024", "rats,mice,2024", "mice,2024,rats"])
def test_a_folder_with_a_comma_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mice,2024").mkdir()
    with pytest.raises(ConfigError, match="the path 'mice,2024' has a comma.*rename it"):
        parse(["train_model", text])
    with pytest.raises(ConfigError, match="the path 'mice,2024' has a comma.*rename it"):
        parse(["plot_history", *text.replace("mice,2024", "mice;2024").replace(",", " ")
              .replace(";", ",").split()])  # fmt: skip


def test_lists_keep_their_items(tmp_path):
    options = TrainingOptions(data_path=(Path("mice,2024"), Path("rats")))
    assert options.model_dump(mode="json")["data_path"] == r"mice\,2024,rats"
    path = tmp_path / "options.yml"
    path.write_text("data_path: ['mice,2024']\n")
    with pytest.raises(ConfigError, match=r"data_path: 'mice,2024' has a comma"):
        COMMANDS["train_model"].check({"config": str(path)})
    path.write_text("data_path: [mice, rats]\n")
    assert read(COMMANDS["train_model"], path).data_path == (Path("mice"), Path("rats"))


@pytest.mark.parametrize("words", [["caf\udce9"], ["data", "--wandb", "--wandb_notes=\udce9"]])
def test_bytes_that_are_no_text_are_refused(words):
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        parse(["train_model", *words])
