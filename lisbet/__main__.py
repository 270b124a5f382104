"""``python -m lisbet`` is the same program as ``betman``."""

from lisbet.cli import main

if __name__ == "__main__":
    main()
