"""Publish models on the Hugging Face hub.

What is uploaded: model_config.yml, one file of weights in one or two formats, and the model card;
nothing else of the folder. All of it is read and checked before the hub is asked anything.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import CommitOperationAdd, HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from lisbet.core.errors import ConfigError, LisbetError, ModelError, OutputError, shortened
from lisbet.core.redact import redacted
from lisbet.core.storage.write_log import WriteLog
from lisbet.models import model_dir
from lisbet.models.locate import model_files
from lisbet.models.multitask import ModelConfig
from lisbet.options import PushModelOptions
from lisbet.training.logging.model_card import CARD, card_of, header, with_header

HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]
"""What a missing network raises, too: of requests, httpx or another, by release of the client."""
TOKENS = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b|\b(?:ghp|github_pat)_\w{20,}\b|\bAKIA[0-9A-Z]{16}\b")
"""Tokens that are recognised by themselves, whatever the environment holds."""
MACHINE_PATH = re.compile(
    r"(?:file:/*|(?<![\w:/.<~*?-]))(?:~|[A-Za-z]:\\|/)(?:[^\s`'\"|,;()/\\]+[/\\])+"
    r"([^\s`'\"|,;()/\\]+)"
)
"""An absolute path of at least two parts; its group is the last one."""
PICTURE = re.compile(r"!\[[^\]]*\]\(pictures/[^)]*\)\n*")
"""A picture of the model card; those files are not uploaded."""
HEADER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*(?=\r?$)", re.S | re.M)
HARMLESS = re.compile(r"\.gitattributes|\.gitignore|README\.md|LICEN[CS]E(\.\w+)?", re.I)
"""Files that a repository may have without being a model's: the hub makes them."""
LARGEST_TEXT = 2**20
"""Bytes of a text file that is uploaded."""
SHOWN = 3


@dataclass(frozen=True)
class Upload:
    """A file of the repository: its name, its content, and what the user should know of it."""

    name: str
    content: bytes
    note: str = ""


def push_model(options: PushModelOptions) -> None:
    """Upload a model in one commit, or with `dry_run` print what would be uploaded."""
    files = files_to_upload(options)
    where = f"{options.repository}{f', branch {options.revision}' if options.revision else ''}"
    print(f"{'would upload' if options.dry_run else 'uploading'} to {where}:")
    for file in files:
        note = f"  ({file.note})" if file.note else ""
        print(f"  {len(file.content):>12,} bytes  {file.name}{note}")
    if options.dry_run:
        print("nothing was uploaded; leave out --dry_run to upload")
        return
    print(f"{options.model_path} is at {upload(options, files)}")


# What is uploaded ---------------------------------------------------------------------------------


def files_to_upload(options: PushModelOptions) -> list[Upload]:
    """Read and check everything that is uploaded.

    Raises
    ------
    ModelError
        If there is no model, or its weights do not fit.
    ConfigError
        If a file holds a password or token, or run_config.yml paths of this machine.
    """
    folder = options.model_path
    path = folder / model_dir.MODEL_CONFIG
    if not path.is_file():
        raise ModelError(f"{folder} is no model's folder: it holds no {model_dir.MODEL_CONFIG}")
    config = model_dir.read_config(path)
    weights = weights_to_upload(folder, options.weights)
    before = [regular(file).read_bytes() for file in weights]
    for file in weights:
        model_dir.load_model(path, file)
    for file in weights[1:]:
        model_dir.require_same_weights(weights[0], file)
    if before != [file.read_bytes() for file in weights]:
        raise ModelError(f"{weights[0]} has changed while it was read; wait until training ends")
    listed = [Upload(path.name, text_of(path).encode())]
    listed += [
        Upload(f"{model_dir.WEIGHTS}/{file.name}", content)
        for file, content in zip(weights, before, strict=True)
    ]
    listed.append(card_to_upload(options, config, listed[1].name))
    if options.run_config:
        listed.append(Upload(model_dir.RUN_CONFIG, run_config_to_upload(folder)))
    return listed


def weights_to_upload(folder: Path, name: str | None) -> list[Path]:
    """Return the file of weights to publish, and the same in the other format where it is there.

    Raises
    ------
    ModelError
        If it is not there, or not clear which one is meant.
    """
    named = None if name is None else folder / model_dir.WEIGHTS / name
    if named is not None and not named.is_file():
        there = ", ".join(sorted(path.name for path in named.parent.glob("*"))) or "nothing"
        raise ModelError(f"--weights={name}: {named.parent} holds {there}")
    _, chosen = model_files(folder, named)
    pair = [chosen.with_suffix(".pt"), chosen.with_suffix(model_dir.SAFETENSORS)]
    found = [path for path in pair if path.is_file()]
    return found or [chosen]  # reading it says that it is missing


def regular(path: Path) -> Path:
    """Refuse a link, which may lead to a file that is not the model's.

    Raises
    ------
    ModelError
        Naming it.
    """
    if path.is_symlink() or not path.is_file():
        raise ModelError(f"{path} is missing, a link or no regular file, and is not uploaded")
    return path


def text_of(path: Path) -> str:
    """Return a text file that holds no password and no token.

    Raises
    ------
    ModelError
        If it cannot be read as text.
    ConfigError
        If it holds one.
    """
    if regular(path).stat().st_size > LARGEST_TEXT:
        raise ModelError(f"{path} has more than {LARGEST_TEXT // 2**20} MiB, and is not uploaded")
    try:
        text = path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is no text in UTF-8, and is not uploaded") from error
    require_no_secret(path, text)
    return text


def require_no_secret(path: Path, text: str) -> None:
    """Refuse a text that holds a password or token.

    Raises
    ------
    ConfigError
        Naming the line.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if redacted(line) != line or TOKENS.search(line):
            raise ConfigError(
                f"{path}, line {number}, seems to hold a password or token; nothing was uploaded. "
                "Remove it from the file, and replace the token if anybody has seen it"
            )


def run_config_to_upload(folder: Path) -> bytes:
    """Return run_config.yml.

    Raises
    ------
    ConfigError
        If it holds a secret, or paths of this machine.
    """
    path = folder / model_dir.RUN_CONFIG
    text = text_of(path)
    found = [
        f"line {number}: {shortened(line.strip(), 100)}"
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    if found:
        raise ConfigError(
            f"--run_config: {path} holds paths of this machine, which the hub would show "
            f"({'; '.join(found[:SHOWN])}). Leave the option out, or train with relative paths"
        )
    return text.encode()


def card_to_upload(options: PushModelOptions, config: ModelConfig, weights: str) -> Upload:
    """Return the model card, that of the folder or a new one, with the header of the hub."""
    path, note = options.model_path / CARD, []
    if os.path.lexists(path):
        text = text_of(path)
        if WriteLog(options.model_path).owns(path):  # another one is left as its author wrote it
            shorter = MACHINE_PATH.sub(r"\1", PICTURE.sub("", text))
            if shorter != text:
                note.append("without paths of this machine and pictures")
            text = shorter
    else:
        text = card_of(config, options.repository, weights)
        note.append("made from model_config.yml")
    completed = with_hub_header(path, text, config, options.license)
    if completed != text:
        note.append("its header was completed")
    require_no_secret(path, completed)
    return Upload(CARD, completed.encode(), "; ".join(note))


def with_hub_header(path: Path, text: str, config: ModelConfig, license_: str | None) -> str:
    """Return a card whose header names library, tags and licence; what it says itself stays.

    Raises
    ------
    ModelError
        If its header is no YAML.
    """
    match = HEADER.match(text)
    try:
        head: Any = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        raise ModelError(f"{path}: its header, between lines of ---, is no YAML") from error
    head = {} if head is None else head
    tags = head.get("tags", []) if isinstance(head, dict) else None
    if not isinstance(tags, list):
        raise ModelError(f"{path}: its header must hold names with values, and tags as a list")
    wanted = header(config)
    whole = wanted | head | {"tags": list(dict.fromkeys([*tags, *wanted["tags"]]))}
    if license_ is not None:
        whole["license"] = license_
    if whole == head:
        return text
    body = text[match.end() :] if match else f"\n\n{text}"
    return with_header(body, whole)


# The hub ------------------------------------------------------------------------------------------


def upload(options: PushModelOptions, files: list[Upload]) -> str:
    """Make the repository where there is none, and add the files in one commit.

    Returns
    -------
    str
        Its address.

    Raises
    ------
    ConfigError
        Without a login, or without the permission.
    OutputError
        If the hub cannot be reached, or the repository holds something else.
    """
    token = get_token()
    if token is None:
        raise ConfigError(
            "publishing needs a login: hf auth login, or a token with the permission to write in "
            "the environment variable HF_TOKEN (huggingface.co/settings/tokens)"
        )
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token, library_name="lisbet")
    name, made = options.repository, False
    with _explained(name) as notes:
        try:
            require_model_repository(api.model_info(name), options)
        except RepositoryNotFoundError:
            api.create_repo(name, repo_type="model", private=options.private or None)
            made = True
            notes.append(f"{name} was made and may be empty")
        if options.revision is not None:
            api.create_branch(name, branch=options.revision, exist_ok=True)
        commit = api.create_commit(
            name,
            [CommitOperationAdd(file.name, file.content) for file in files],
            commit_message=options.message or f"{'Add' if made else 'Update'} the model",
            revision=options.revision,
        )
    return str(commit.commit_url)


def require_model_repository(info: ModelInfo, options: PushModelOptions) -> None:
    """Refuse a repository that holds something else, or is public where a private one is wanted.

    Raises
    ------
    OutputError
        Saying what is there.
    """
    if options.private and not info.private:
        raise OutputError(
            f"--private: {options.repository} exists already and is public; nothing was uploaded. "
            "Change it on the hub, in its settings, or choose another name"
        )
    names = sorted(file.rfilename for file in info.siblings or ())
    other = [name for name in names if not HARMLESS.fullmatch(name)]
    if other and model_dir.MODEL_CONFIG not in names:
        shown = f"{', '.join(other[:SHOWN])}{' and more' if len(other) > SHOWN else ''}"
        raise OutputError(
            f"{options.repository} holds no {model_dir.MODEL_CONFIG}, but {shown}: it is no LISBET "
            "model, and nothing was uploaded; choose another name"
        )


@contextmanager
def _explained(name: str) -> Iterator[list[str]]:
    """Turn errors of the hub into messages; what it yields is added to them."""
    notes: list[str] = []
    try:
        yield notes
    except LisbetError:
        raise
    except (HTTP_ERROR, OSError, ValueError, RuntimeError) as error:
        # An upload of a large file that failed is a RuntimeError; its cause is what happened.
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        response = getattr(cause, "response", None)
        status = getattr(response, "status_code", None)
        said = shortened(" ".join(redacted(str(cause)).split()), 300)
        after = f" {'; '.join(notes)}." if notes else ""
        if status == 401:
            raise ConfigError(
                f"the hub does not accept the login ({said}).{after} Give it anew with hf auth "
                "login, or in the environment variable HF_TOKEN"
            ) from error
        if status in (403, 404, 409):
            raise ConfigError(
                f"the login may not write to {name}, or there is no such organisation or branch "
                f"({said}).{after} The token needs the permission to write, and you must be a "
                "member of the organisation"
            ) from error
        if status is not None or isinstance(cause, ValueError):
            raise OutputError(f"the hub refuses the upload to {name}: {said}.{after}") from error
        raise OutputError(
            f"the hub cannot be reached ({said}).{after} Where there is no internet, copy the "
            "folder to a machine that has it"
        ) from error
