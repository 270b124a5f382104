"""Scores of training, against scikit-learn on all answers at once."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score

from lisbet.core.errors import ModelError
from lisbet.tasks._counts import accuracy, decisions, macro_f1
from lisbet.tasks.multiclass import Multiclass
from lisbet.tasks.multilabel import Multilabel
from lisbet.tasks.order import Order
from lisbet.training.scores import Scores


def batches(rng, classes, *, one):
    for size in (5, 32, 1, 20):
        logits = rng.normal(size=(size, classes)).astype(np.float32)
        labels = rng.integers(0, classes, size) if one else rng.random((size, classes)) < 0.3
        yield torch.from_numpy(logits), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_multilabel_f1(classes):
    found = list(batches(np.random.default_rng(0), classes, one=False))
    counts = sum(decisions(logits > 0, labels) for logits, labels in found)
    logits, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    expected = f1_score(labels, logits > 0, average="macro" if classes > 1 else "binary")
    assert macro_f1(counts, skip_absent=False) == pytest.approx(expected)


def test_multiclass_f1_leaves_classes_out_that_never_come_up():
    task = Multiclass()
    task._classes = ("a", "b", "c", "d")
    found = list(batches(np.random.default_rng(1), 4, one=True))
    for logits, labels in found:  # class 3 is neither true nor predicted
        logits[:, 3] = -100
        labels[labels == 3] = 0
    counts = sum(task.count(logits, labels) for logits, labels in found)
    logits, labels = (np.concatenate(parts) for parts in zip(*found, strict=True))
    expected = f1_score(labels, logits.argmax(1), average="macro", labels=[0, 1, 2])
    assert task.score_of(counts) == pytest.approx(expected)


def test_a_behaviour_without_any_positive_counts_as_zero():
    task = Multilabel()
    task._classes = ("a", "b")
    logits, labels = torch.tensor([[1.0, -1.0]]), torch.tensor([[1.0, 0.0]])
    assert task.score_of(task.count(logits, labels)) == 0.5
    assert macro_f1(torch.zeros(6, dtype=torch.int64), skip_absent=True) == 0


def test_accuracy():
    task = Order()
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(50, 1)).astype(np.float32)
    labels = (rng.random(50) < 0.5).astype(np.float32)
    counts = task.count(torch.from_numpy(logits), torch.from_numpy(labels))
    assert task.score_of(counts) == pytest.approx(accuracy_score(labels > 0, logits[:, 0] > 0))
    assert accuracy(torch.zeros(2)) == 0


def take(scores, losses, answers):
    logits = torch.tensor(answers)[:, None]
    scores.update(torch.tensor([losses]), {"order": logits}, {"order": (logits, torch.ones(2))})
    scores.update_norm(torch.tensor(2 * losses))


def test_counts_of_processes_are_summed_when_fewer_go_on():
    tasks, device = {"order": Order()}, torch.device("cpu")
    first, second, alone = (Scores(tasks, device) for _ in range(3))
    take(first, 1.0, [1.0, 1.0])
    first.mark()
    take(first, 3.0, [1.0, -1.0])
    take(second, 5.0, [-1.0, -1.0])
    marked = {f"marked.{key}": 0 * value for key, value in second.state_dict().items()}
    alone.load_state_dict([first.state_dict(), second.state_dict() | marked], 0, 1)
    assert alone.compute("train") == pytest.approx(
        {"train_loss": 3, "order_train_loss": 3, "order_train_accuracy": 0.5, "gradient_norm": 6}
    )
    since = alone.of_counts(alone.since_mark(), "train")
    assert since["order_train_loss"] == pytest.approx(4)
    assert since["order_train_accuracy"] == pytest.approx(0.25)


def test_scores_of_an_earlier_version_are_refused():
    scores = Scores({"order": Order()}, torch.device("cpu"))
    with pytest.raises(ModelError, match="earlier version"):
        scores.load_state_dict([{"loss.order.mean_value": torch.zeros(())}], 0, 1)


def test_a_mean_of_nothing_is_no_number():
    """Such as the loss of an epoch of which every step was left out."""
    found = Scores({"order": Order()}, torch.device("cpu")).compute("train")
    assert np.isnan(found["order_train_loss"])
    assert "gradient_norm" not in found
