"""The settings of functions are the options of commands, checked in the same way."""

from typing import Any, TypeVar

from pydantic import ValidationError

from lisbet.core.errors import ConfigError, first_message, unknown
from lisbet.options import Options

Kind = TypeVar("Kind", bound=Options)


def checked(kind: type[Kind], **settings: Any) -> Kind:
    """Return options, with text read as on the command line.

    Parameters
    ----------
    kind : type of Options
        Options of a command.
    **settings
        Values by the names of the options, as text or as the option holds them.

    Raises
    ------
    ConfigError
        On a name that is no option, or a value that cannot be used.
    """
    if strange := [name for name in settings if name not in kind.model_fields]:
        raise ConfigError(unknown("setting", strange[0], kind.model_fields))
    try:
        return kind(**settings)
    except ValidationError as error:
        raise ConfigError(first_message(error)) from error
