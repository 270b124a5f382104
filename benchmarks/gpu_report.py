"""The report of the GPU benchmark."""

from typing import Any

from gpu_common import EPOCH_WINDOWS, SPECIFIED_S


def report(found: dict[str, Any]) -> str:
    """Return the tables as Markdown."""
    lines = [", ".join(f"{key} {shown(value)}" for key, value in found["machine"].items()), ""]
    for part in ("rates", "equality", "train", "published"):
        if rows := found.get(part):
            lines += [f"| {part} | |", "|---|---|"]
            lines += [f"| {row['what']} | {shown(row['value'])} |" for row in rows]
            lines.append("")
    lines += speed_table(found)
    if rows := found.get("strategies"):
        lines += ["| strategy | windows/s | memory, GB | train loss | seconds with start-up |",
                  "|---|---|---|---|---|"]  # fmt: skip
        for row in rows:
            cells = [
                row.get(key) for key in ("windows_per_s", "memory_gb", "train_loss", "seconds")
            ]
            failed = f"failed: {row.get('error', '').splitlines()[-1:]}"
            lines.append(f"| {row['what']} | " + " | ".join(
                [failed, "", "", ""] if "error" in row else map(shown, cells)) + " |")  # fmt: skip
        lines.append("")
    for part, error in found["errors"].items():
        lines += [f"{part} failed:", "```", error, "```", ""]
    lines.append(f"{found['seconds']:.0f} s in all")
    return "\n".join(lines) + "\n"


def speed_table(found: dict[str, Any]) -> list[str]:
    """Return the table of training steps, and what they mean for the specification's epoch."""
    rows = found.get("speed", [])
    if not rows:
        return []
    peak = {row["what"]: row["value"] for row in found.get("rates", [])}
    product = peak.get("bf16 matrix product, TFLOP/s")
    lines = [
        "| precision | mode | batch for each task | micro-batches | step, ms | windows/s | "
        "not in kernels | TFLOP/s | of the bf16 rate | memory, GB | first step, s |",
        "|" + "---|" * 11,
    ]
    for row in rows:
        start = f"| {row['precision']} | {row['mode']} | {row['batch']} | "
        if "error" in row:
            lines.append(f"{start}| | {row['error']} | | | | | |")
            continue
        rate = row["windows_per_s"] * row["flop_per_window"] / 1e12
        share = f"{rate / product:.1%}" if product else ""
        kernels = f"{row['not_in_kernels']:.0%}" if "not_in_kernels" in row else ""
        lines.append(
            f"{start}{row['micro_batches']} | {row['step_ms']:.2f} | {row['windows_per_s']:,.0f} | "
            f"{kernels} | {rate:.2f} | {share} | {row.get('memory_gb', 0):.2f} | "
            f"{row['first_step_s']:.1f} |"
        )
    if not (best := max(row.get("windows_per_s", 0) for row in rows)):
        return [*lines, ""]
    epoch = f"{EPOCH_WINDOWS:,} windows at the best rate: {EPOCH_WINDOWS / best:.1f} s"
    return [*lines, "", f"An epoch of {epoch}; the specification says {SPECIFIED_S} s.", ""]


def shown(value: Any) -> str:
    """Return a number as a table shows it."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
