"""Combinations of the options of train_model: all pairs of values, and what must be refused."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from allpairspy import AllPairs

BYTES_OF_FRAME = 2 * 3 * 2 * 4
"""Two individuals, three keypoints, two axes, float32."""
RECORDINGS = {"many": (40, 20), "few": (4, 20), "single": (1, 40), "single_2": (1, 40)}
"""Recordings of each test dataset, and frames of each recording."""
CONVERTED = ("zarr", "float16")
AUGMENTED = ("all_perm_id:p=0.5,all_perm_ax:p=0.5,blk_perm_id:p=0.5:frac=0.3,gauss_jitter:p=0.5,"
             "kp_ablation:pB=0.2,rotation:p=0.5")  # fmt: skip
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
        "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT", "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "TransformerEncoderLayer"}  # fmt: skip
ZERO2 = {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
         "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE": "none",
         "ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "none",
         "ACCELERATE_DEEPSPEED_ZERO3_INIT": "false",
         "ACCELERATE_CONFIG_DS_FIELDS": ""}  # fmt: skip
STRATEGIES: dict[str, tuple[int, dict[str, str]]] = {
    "one process": (1, {}),
    "DDP, 2 processes": (2, {}),
    "FSDP": (1, FSDP),
    "FSDP, 2 processes": (2, FSDP),
    "ZeRO-2": (1, ZERO2),
}
"""Processes, and what Accelerate makes of the launch file."""

SIZES = ["--emb_dim=8", "--num_layers=1", "--hidden_dim=16", "--window_size=12"]
BACKBONES = {
    "transformer": [*SIZES, "--num_heads=2"],
    "lstm": [*SIZES, "--backbone_preset=lstm-base"],
    "tcn": [*SIZES, "--backbone_preset=tcn-base", "--set=backbone.kernel_size=3"],
}
SMALL, TOO_SMALL = 30.0, 0.9
"""KB: less than the dataset of many recordings takes; less than any recording takes."""
WORDS: dict[str, dict[str, list[str]]] = {
    "backbone": BACKBONES,
    "bank_memory": {
        "default": [],
        "all": ["--bank_memory=all"],
        "small": [f"--bank_memory={SMALL:g}KB"],
        "too small": [f"--bank_memory={TOO_SMALL:g}KB"],
    },
    "tracking": {
        "none": [],
        "tensorboard": ["--tensorboard", "--log_every=1"],
        "wandb": ["--wandb", "--wandb_mode=offline"],
    },
    "pictures": {
        "default": [],
        "never": ["--embedding_every=0"],
        "each epoch": ["--embedding_every=1"],
    },
    "tasks": {
        "self-supervised": [],
        "multiclass": ["--task_ids=multiclass"],
        "multilabel": ["--task_ids=multilabel"],
        "mixed": [
            "--task_ids=multiclass,order,warp",
            "--task_data=multiclass:[0],order:[0,1]",
        ],
    },
    "precision": {
        "default": [],
        "no": ["--mixed_precision=no"],
        "bf16": ["--mixed_precision=bf16"],
        "fp16": ["--mixed_precision=fp16"],
    },
    "augmentation": {"none": [], "all six": [f"--data_augmentation={AUGMENTED}"]},
    "save_weights": {
        "last": [],
        "best": ["--save_weights=best"],
        "all": ["--save_weights=all", "--keep_checkpoints=1"],
    },
    "micro_batch": {"default": [], "4": ["--micro_batch_size=4", "--clip_grad_norm=1"]},
    "checkpoints": {"each epoch": [], "each step": ["--checkpoint_every=1steps"]},
    "skip_nonfinite": {"0": [], "3": ["--skip_nonfinite=3"]},
    "hash_samples": {"no": [], "yes": ["--hash_samples"]},
}
"""Words of the command line, by parameter and value."""
STARTS = [
    "new",
    "interrupted",
    "interrupted, other strategy",
    "exists",
    "overwrite",
    "overwrite and resume",
]
PARAMETERS: dict[str, list[str]] = {
    "strategy": list(STRATEGIES),
    "format": ["movement", "dlc", "zarr", "float16"],
    "datasets": ["one", "two", "two formats"],
    "dev_split": ["none", "0.5", "0.5, single recordings"],
    "backbone_weights": ["random", "loaded", "loaded, frozen", "random, frozen"],
    "compiler": ["none", "eager"],
    "start": STARTS,
    **{name: list(values) for name, values in WORDS.items()},
}


@dataclass(frozen=True)
class Data:
    """A dataset of the tests."""

    format: str
    name: str

    @property
    def path(self) -> str:
        """Path below the folder of all datasets."""
        return f"{self.format}/{self.name}"

    @property
    def bytes(self) -> int:
        """Memory that its recordings take."""
        count, frames = RECORDINGS[self.name]
        return count * frames * BYTES_OF_FRAME


@dataclass(frozen=True)
class Combination:
    """A value of each parameter, or of the first ones while combinations are searched."""

    values: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Iterable[str]) -> "Combination":
        """Return the combination of values in the order of `PARAMETERS`."""
        return cls(dict(zip(PARAMETERS, values, strict=False)))

    def has(self, **wanted: str) -> bool:
        """Whether it has these values."""
        return all(self.values.get(name) == value for name, value in wanted.items())

    def knows(self, *names: str) -> bool:
        """Whether it has a value of each of these parameters."""
        return all(name in self.values for name in names)

    def with_value(self, name: str, value: str) -> "Combination":
        """Return it with one more value, in the order of `PARAMETERS`."""
        values = self.values | {name: value}
        return Combination({name: values[name] for name in PARAMETERS if name in values})

    @property
    def pairs(self) -> set[tuple[tuple[str, str], ...]]:
        """All pairs of values that it tests."""
        return set(itertools.combinations(self.values.items(), 2))

    @property
    def data(self) -> list[Data]:
        """The datasets, in the order of the data paths."""
        own = self.values["format"]
        other = "movement" if own != "movement" else "zarr"
        single = self.has(dev_split="0.5, single recordings")
        second = {"two": own, "two formats": other}.get(self.values["datasets"])
        first = Data(own, "single" if single else "many")
        return [first] + ([Data(second, "single_2" if single else "few")] if second else [])

    def words(self, folder: str) -> list[str]:
        """Return the command line, for datasets below a folder.

        Two steps in each of two epochs.
        """
        words = ["train_model", "--run_id=a", "--batch_size=16", "--epochs=2", "--warmup_epochs=0",
                 "--save_history", "--annot_format=csv_events"]  # fmt: skip
        for name, of_value in WORDS.items():
            words += of_value[self.values[name]]
        words += {
            "none": ["--train_sample=0.04"],
            "0.5": ["--train_sample=0.08", "--dev_ratio=0.5", "--dev_sample=0.08"],
            "0.5, single recordings": ["--train_sample=0.5", "--dev_ratio=0.5"],
        }[self.values["dev_split"]]
        weights = self.values["backbone_weights"]
        if "loaded" in weights:
            source = f"{folder}/models/{self.values['backbone']}/weights/weights_last.pt"
            words.append(f"--load_backbone_weights={source}")
        if "frozen" in weights:
            words.append("--freeze_backbone_weights")
        formats = ["zarr" if data.format in CONVERTED else data.format for data in self.data]
        words.append(f"--data_format={','.join(formats)}")
        if "dlc" in formats:
            words.append("--fps=30")
        return [*words, ",".join(f"{folder}/{data.path}" for data in self.data)]

    def __str__(self) -> str:
        return "; ".join(f"{name} {value}" for name, value in self.values.items())


def expected_refusals(combination: Combination) -> list[str]:
    """Return a pattern of the message for each reason to refuse a combination; none if it trains.

    Parameters
    ----------
    combination : Combination
        Of the first parameters alone, it is refused if every one that begins with it is.
    """
    has, knows = combination.has, combination.knows
    found = []
    if has(precision="fp16"):
        found.append(r"--mixed_precision=fp16 needs a GPU, and there is none; use bf16 or no")
    if has(save_weights="best", dev_split="none"):
        found.append(r"--save_weights=best needs held-out recordings; pass --dev_ratio")
    if has(dev_split="0.5, single recordings", datasets="one"):
        found.append(r"--dev_ratio=0\.5 holds out 1 of 1 recordings and leaves none to train on")
    if has(dev_split="0.5, single recordings", save_weights="best"):
        found.append(
            r"--save_weights=best needs held-out recordings, but each of the data paths \S+, \S+ "
            "has a single recording"
        )
    if has(tasks="mixed", datasets="one"):
        found.append(r"--task_data: order names dataset 1, but there are only 1, numbered 0 to 0")
    if has(start="overwrite and resume"):
        found.append(r"--resume keeps what --overwrite replaces; pass one of them")
    if has(start="exists"):
        found.append(r"models/a exists already; choose another --run_id, or replace it with --over")
    if has(start="interrupted, other strategy", strategy="ZeRO-2"):
        found.append(r"DeepSpeed cannot resume from it with one process and 1 processes")
    if knows("format", "datasets", "dev_split", "bank_memory"):
        found += _refusals_of_memory(combination)
    return found


def _refusals_of_memory(combination: Combination) -> list[str]:
    """Refuse what cannot be brought in turn: recordings that are not converted, and very long ones.

    A data path with a single recording is kept whole; see `expected_refusals` for one alone.
    """
    given = {"small": SMALL, "too small": TOO_SMALL}.get(combination.values["bank_memory"])
    if given is None or sum(data.bytes for data in combination.data) <= given * 2**10:
        return []
    in_files = sum(data.bytes for data in combination.data if data.format not in CONVERTED)
    if in_files > given * 2**10:
        return [r"MB are not converted, and only converted ones can be read in parts"]
    if combination.has(bank_memory="too small"):
        return [r"has \d+ frames, of which 6 times as many do not fit into 0 MB; pass --bank_mem"]
    return []


def trained() -> list[Combination]:
    """Return combinations that train; each pair of values that can is in one of them."""
    return _covering(most_reasons=0)


def refused() -> list[Combination]:
    """Return combinations that are refused, each for one reason; all pairs that can be are in one.

    With several reasons, only the first one that the program finds would be seen.
    """
    return [one for one in _covering(most_reasons=1) if expected_refusals(one)]


def _covering(most_reasons: int) -> list[Combination]:
    """Return combinations with all pairs of values, as far as so few reasons refuse them."""

    def is_kept(values: list[str]) -> bool:
        return len(expected_refusals(Combination.of(values))) <= most_reasons

    rows = AllPairs(list(PARAMETERS.values()), filter_func=is_kept)
    found = [Combination.of(row) for row in rows]
    open_pairs = all_pairs() - set().union(*(one.pairs for one in found))
    while open_pairs:  # the library ends when the combination that it tries next has no new pair
        pair = min(open_pairs)
        one = next(_completions(Combination(dict(pair)), open_pairs, most_reasons), None)
        open_pairs -= {pair}
        if one is not None:
            found.append(one)
            open_pairs -= one.pairs
    return found


def all_pairs() -> set[tuple[tuple[str, str], ...]]:
    """Return all pairs of values of different parameters."""
    single = [[(name, value) for value in values] for name, values in PARAMETERS.items()]
    return {
        pair for one, other in itertools.combinations(single, 2)
        for pair in itertools.product(one, other)
    }  # fmt: skip


def _completions(
    begin: Combination, wanted: set[tuple[tuple[str, str], ...]], most_reasons: int
) -> Iterator[Combination]:
    """Yield the combinations with some values, those with most wanted pairs first."""
    if len(expected_refusals(begin)) > most_reasons:
        return
    if begin.knows(*PARAMETERS):
        yield begin
        return
    name = next(name for name in PARAMETERS if name not in begin.values)
    longer = [begin.with_value(name, value) for value in PARAMETERS[name]]
    for one in sorted(longer, key=lambda one: -len(one.pairs & wanted)):
        yield from _completions(one, wanted, most_reasons)


def sample(combinations: list[Combination], count: int) -> list[int]:
    """Return the numbers of some combinations that have, together, as many values as can be.

    The first value of each parameter, its default, does not count: other tests use it.
    """
    seen = {(name, values[0]) for name, values in PARAMETERS.items()}
    chosen: list[int] = []
    while len(chosen) < count:
        rest = [n for n in range(len(combinations)) if n not in chosen]
        best = max(rest, key=lambda n: len(set(combinations[n].values.items()) - seen))
        chosen.append(best)
        seen |= set(combinations[best].values.items())
    return chosen
