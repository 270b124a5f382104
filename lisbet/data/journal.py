"""What of a conversion is safe on the disk: a line for each step, each synced."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """A file of JSON lines.

    Parameters
    ----------
    path : Path
        Where it is.
    """

    path: Path

    def note(self, line: dict[str, Any]) -> None:
        """Add a line, and wait until it is on the disk."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines up to one that was cut off; none if there is no journal."""
        lines: list[dict[str, Any]] = []
        if self.path.is_file():
            for text in self.path.read_text("utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def remove(self) -> None:
        """Remove it, if it is there."""
        self.path.unlink(missing_ok=True)
