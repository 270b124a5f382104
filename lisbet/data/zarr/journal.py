"""What of an unfinished store is on the disk: a line for each step, each synced."""

import json
from dataclasses import dataclass
from pathlib import Path

from lisbet.core.json_types import JsonDict
from lisbet.core.storage.files import append_text, remove_file

NAME = ".lisbet.conversion.jsonl"


@dataclass(frozen=True)
class Journal:
    """A file of JSON lines in the folder of a store.

    Parameters
    ----------
    folder : Path
        The folder, which has a log of written files.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / NAME

    def note(self, line: JsonDict) -> None:
        """Add a line, and wait until it is on the disk."""
        append_text(self.path, json.dumps(line) + "\n", self.folder)

    def lines(self) -> list[JsonDict]:
        """Return the lines up to one that was cut off; none if there is no journal."""
        lines: list[JsonDict] = []
        if self.path.is_file():
            for text in self.path.read_text("utf-8").splitlines():
                try:
                    lines.append(json.loads(text))
                except ValueError:
                    break
        return lines

    def remove(self) -> None:
        """Remove it, if it is there."""
        remove_file(self.path, self.folder)
