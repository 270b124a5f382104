"""The command line: what is accepted, what is refused, and that nothing runs before."""

import importlib
import subprocess
import sys

import pytest
from conftest import betman

from lisbet.cli import main, parse
from lisbet.cli.commands import COMMANDS
from lisbet.core.console import track
from lisbet.core.errors import ConfigError
from lisbet.options import typed
from lisbet.training.logging.progress import ProgressReporter


def options(line: str):
    job = parse(line.split())
    assert job is not None
    return job.options


@pytest.mark.parametrize(
    "line",
    [
        "train_model --epochs=3 --run_id=x data",
        "train_model data --epochs 3 --run_id x",
        "train-model --run-id x --epochs=3 data",
        "train_model --epochs 3 data --run_id=x",
        "train_model --data_path=data --run_id=x --epochs=3",
    ],
)
def test_options_before_and_after_words_with_and_without_equals(line):
    read = options(line)
    assert (str(*read.data_path), read.epochs, read.run_id) == ("data", 3, "x")


@pytest.mark.parametrize(
    ("switch", "expected"),
    [
        ("--save_history", True),
        ("--save_history=True", True),
        ("--save_history true", True),
        ("--save_history=false", False),
        ("--no_save_history", False),
        ("--no-save-history", False),
        ("", False),
    ],
)
def test_a_switch_never_takes_the_next_word(switch, expected):
    read = options(f"train_model -v {switch} data")
    assert (str(*read.data_path), read.save_history, read.verbose) == ("data", expected, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--mixed_precision data", "best"),
        ("--mixed_precision bf16 data", "bf16"),
        ("--mixed_precision=no data", "no"),
        ("data --mixed_precision", "best"),
    ],
)
def test_an_option_that_may_stand_without_a_value(words, expected):
    read = options(f"train_model {words}")
    assert (str(*read.data_path), read.mixed_precision) == ("data", expected)


def test_how_much_is_said():
    assert options("train_model -vv data").verbose == 2
    assert options("train_model -v data -v").verbose == 2
    assert options("train_model --verbose data").verbose == 1
    assert options("train_model --verbose 2 data").verbose == 2


@pytest.mark.parametrize("run_id", ["001", "20250101", "1e5", "None", "True", "7"])
def test_text_stays_text(run_id):
    assert options(f"train_model --run_id={run_id} data").run_id == run_id


def test_lists_and_sizes_are_read_as_what_they_are():
    read = options("train_model --task_ids=cons --data_scale=0970x570 data")
    assert read.task_ids == ("cons",)
    assert read.data_scale.size == (970.0, 570.0)
    assert options("train_model --task_ids=warp,cons data").task_ids == ("warp", "cons")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train_modle data", "did you mean 'train_model'"),
        ("train_model --runid=3 data", "did you mean --run_id"),
        ("train_model -x data", "no option '-x'"),
        ("train_model data more", "unexpected word 'more'; train_model takes DATA_PATH"),
        ("train_model", "DATA_PATH is missing"),
        ("train_model --epochs=ten data", "--epochs=ten: expected a whole number"),
        ("train_model --epochs=0 data", "--epochs=0: expected 1 or more"),
        ("train_model --learning_rate=fast data", "--learning_rate=fast: expected a number"),
        ("train_model --outside=drop data", "--outside=drop: expected 'error' or 'missing'"),
        ("train_model --save_history=maybe data", "--save_history=maybe: expected true or false"),
        (
            "train_model --epochs data",
            "DATA_PATH is missing|--epochs=data: expected a whole number",
        ),
        ("train_model --epochs --seed=3 data", "--epochs needs a value"),
        ("train_model data --epochs", "--epochs needs a value"),
        ("train_model --epochs=3 --epochs=4 data", "given twice"),
        ("train_model --epochs=1.5 data", "--epochs=1.5"),
        ("train_model --epochs=0 data", "--epochs=0"),
        ("train_model --save_history=perhaps data", "--save_history=perhaps"),
        ("train_model --train_sample=1.5 data", "--train_sample=1.5"),
        ("train_model --train_sample=0 data", "--train_sample=0"),
        ("train_model --dev_ratio=0 data", "--dev_ratio=0"),
        ("train_model --dev_ratio=2 data", "--dev_ratio=2"),
        ("train_model --window_offset=-1 data", "--window_offset=-1"),
        ("train_model --fps_scaling=0.001 data", "--fps_scaling=0.001"),
        ("train_model --window_size=100 --fps_scaling=0.01 data", "less than two frames"),
        ("train_model --learning_rate=1e38 data", "--learning_rate=1e38"),
        ("train_model a,a/b", "overlap; a recording would count twice"),
        ("train_model --window_size=10 --window_offset=10 data", "must be smaller than"),
        ("train_model --task_ids=cons,ordr data", "did you mean 'order'"),
        ("train_model --task_ids=cons,cons data", "names a task twice"),
        ("train_model --task_ids=cons,,warp data", "an item is empty"),
        ("train_model --data_format=SLAP data", "did you mean 'sleap'"),
        ("train_model --data_scale=big data", "expected WIDTHxHEIGHT"),
        ("train_model --task_data=warp:0 data", "expected task:"),
        ("train_model --task_data=multiclass:[0] data", "no task 'multiclass'"),
        ("train_model --task_data=warp:[1] data", "there are only 1"),
        ("train_model --data_format=DLC,SLEAP,DLC a,b", "3 values for 2 data paths"),
        ("train_model --save_weights=best data", "pass --dev_ratio"),
        ("train_model --mixed_precision=bf17 data", "--mixed_precision=bf17"),
        ("train_model --annot_format=borris data", "did you mean 'boris'"),
        ("train_model --select_coords=a,b data", "expected INDIVIDUALS;AXES;KEYPOINTS"),
        ("train_model --run_id=a/b data", "not a plain name"),
        ("train_model --run_id=.. data", "not a plain name"),
        ("train_model --backbone_preset=transformer data", "did you mean 'transformer-base'"),
        ("train_model --set=order.x data", "expected owner.key=value"),
        ("train_model --set=shift.x=1 --task_ids=warp data", "no part 'shift'"),
        ("train_model --learning_rate=nan data", "--learning_rate=nan"),
        ("fetch_dataset SampleDat", "did you mean 'SampleData'"),
    ],
)
def test_what_is_refused_and_why(line, message):
    with pytest.raises(ConfigError, match=message):
        parse(line.split())


def test_two_problems_are_one_report():
    with pytest.raises(ConfigError, match="(?s)--epochs=0.*--seed=x"):
        parse(["train_model", "--epochs=0", "--seed=x", "data"])


@pytest.mark.parametrize("line", ["", "--help", "-h", "help", "--version", "help train_model"])
def test_help_is_printed_and_nothing_runs(line, capsys):
    assert parse(line.split()) is None
    assert "betman" in capsys.readouterr().out


def test_progress_is_shown_on_terminals_only(monkeypatch, capsys):
    """Notebooks set this for their shell cells, which are no terminals."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(track(iter("abc"), "letters", 3)) == ["a", "b", "c"]
    with ProgressReporter(1, 3, 8, prints=True).epoch(0) as ticker:
        ticker()
    assert capsys.readouterr().err == ""


def test_an_option_may_have_a_name_that_python_reserves():
    for line in ("plot_ethogram --from=10 a", "plot_ethogram a --from 10"):
        assert parse(line.split()).options.from_ == 10
    with pytest.raises(ConfigError, match="from is given twice"):
        parse(["plot_ethogram", "--from=1", "--from=2", "a"])
    with pytest.raises(ConfigError, match=r"no option --fro; did you mean --from\?"):
        parse(["plot_ethogram", "--fro=1", "a"])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_help(name, capsys):
    parse([name, "--help"])
    page = capsys.readouterr().out
    for option, field in COMMANDS[name].fields.items():
        assert field.description, option
        word = option.upper() if option in COMMANDS[name].positionals else f"--{typed(option)}"
        assert word in page
    assert "examples:" in page
    assert max(map(len, page.split("examples:")[0].splitlines())) <= 80


@pytest.mark.parametrize(
    "words",
    [
        ["train_model", "--help"],
        ["train_model", "--epoch=3", "x"],
        ["train_model", "--seed=x", "x"],
    ],
)
def test_help_and_argument_errors_do_not_load_torch(words):
    program = (
        "import sys; from lisbet.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'xarray', 'accelerate', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


def test_errors_are_one_message_without_a_traceback(tmp_path):
    done = betman("train_model", "nowhere", cwd=tmp_path, real=True)
    assert done.returncode == 2
    assert done.stderr.startswith("betman: error: nowhere does not exist")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
    assert "Traceback" in betman("train_model", "-vv", "nowhere", cwd=tmp_path, real=True).stderr


def test_a_defect_is_told_apart_from_bad_input(monkeypatch, capsys):
    def broken(_):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("lisbet.data.hub.fetch_dataset", broken)
    with pytest.raises(SystemExit) as caught:
        main(["fetch_dataset", "SampleData"])
    assert caught.value.code == 1
    assert "a defect of betman" in capsys.readouterr().err


def test_the_module_is_the_same_program(tmp_path):
    module = betman("--version", cwd=tmp_path, real=True)
    script = subprocess.run(
        [sys.executable, "-c", "from lisbet.cli import main; main(['--version'])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert module.stdout == script.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_function_of_a_command_is_there(name):
    module, function = COMMANDS[name].target.split(":")
    assert callable(getattr(importlib.import_module(f"lisbet.{module}"), function))
