"""Advice on batch size and learning rate for several devices."""

import math

from lisbet.training.datasets.batching import divisors

FILLED = 0.9
"""Share of a device's highest rate from which it counts as filled."""
DEVICES = (2, 4, 8, 16)
"""Numbers of devices that the table has, besides the one that was asked for."""
LARGEST_GROUP = 64
"""Most devices that are named among which the batch divides."""


def filled_from(rates: dict[int, float]) -> int | None:
    """Return the smallest batch at which a device is filled, or None if a larger one may be faster.

    Parameters
    ----------
    rates : dict of int to float
        Windows per second, by the number of windows of each task in a batch; ascending.

    Examples
    --------
    >>> filled_from({8: 100.0, 16: 180.0, 32: 200.0, 64: 199.0})
    16
    >>> filled_from({8: 100.0, 16: 200.0}) is None
    True
    """
    best = max(rates.values())
    largest = max(rates)
    first = next(size for size, rate in rates.items() if rate >= FILLED * best)
    return None if first == largest and len(rates) > 1 else first


def advice(
    batch_size: int, processes: int, learning_rate: float, rates: dict[int, float], device: str
) -> str:
    """Return the advice as lines for a terminal.

    Learning rates by two rules for a batch that is k times as large: multiplied by the square root
    of k, which Malladi et al. (2022, arXiv:2205.10287) derive for Adam and RMSprop; and multiplied
    by k, which Goyal et al. (2017, arXiv:1706.02677) use for SGD, after a warm-up.

    Parameters
    ----------
    batch_size : int
        Windows of each task in a step, on all devices together.
    processes : int
        Number of devices.
    learning_rate : float
        The one for this batch size.
    rates : dict of int to float
        As for `filled_from`; empty if they were not measured.
    device : str
        What was measured, such as "CPU".
    """
    each = batch_size // processes
    groups = [count for count in divisors(batch_size) if count <= LARGEST_GROUP]
    lines = [
        f"--batch_size={batch_size} is the batch of all devices: the same command trains the same "
        "model on any number of them.",
        f"  {each} windows of each task on each of {processes} devices; it divides among "
        f"{', '.join(map(str, groups))} devices."
        if processes > 1
        else f"  It divides among {', '.join(map(str, groups))} devices.",
    ]
    lines += _filling(each, processes, rates, device)
    lines += [
        "A larger batch uses more devices, and is another model: fewer and less noisy steps in an "
        "epoch.",
        f"  To keep {each} windows on each device, and a learning rate to start from:",
        f"  {'devices':>7} {'--batch_size':>13} {'--learning_rate':>16} {'(linear rule)':>14}",
    ]
    for count in sorted({*DEVICES} - {1, processes}):
        times = count / processes
        if times < 1:
            continue
        lines.append(
            f"  {count:>7} {each * count:>13} {learning_rate * math.sqrt(times):>16.3g} "
            f"{learning_rate * times:>14.3g}"
        )
    lines += [
        "  --learning_rate: square-root rule, for Adam (Malladi et al. 2022, arXiv:2205.10287), as",
        "  training uses AdamW. The linear rule is for SGD (Goyal et al. 2017, arXiv:1706.02677).",
        "  Compare held-out scores (--dev_ratio) before you rely on either.",
    ]
    return "\n".join(lines)


def _filling(each: int, processes: int, rates: dict[int, float], device: str) -> list[str]:
    """Return from which batch a device is filled, as far as it was measured."""
    if not rates:
        return [
            "  From which batch a device is filled: not measured, as --rate is given; run it "
            "without on such a device."
        ]
    best, largest = max(rates.values()), max(rates)
    measured = f"{min(rates)} to {largest} windows of each task"
    if (filled := filled_from(rates)) is None:
        return [
            f"  This {device} is not filled by {largest} windows of each task, the most that were "
            f"measured ({best:,.0f} windows/s)."
        ]
    lines = [
        f"  This {device} is filled from {filled} windows of each task on: {100 * FILLED:.0f}% of "
        f"its highest rate, {best:,.0f} windows/s (of {measured})."
    ]
    if processes > 1 and each < filled:
        lines.append(
            f"  With {each} on each device they are not filled: {processes} such devices take "
            f"more time than {processes} times less; use fewer, or a larger batch."
        )
    return lines
