"""What the saved models of every stage have in common: checked settings, and weights loaded whole.

transformers keeps an unknown setting, takes a value of any type, and puts random weights where a
file lacks some. Here each of these is refused in a sentence.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin

from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel

FORMAT_VERSION = 1
"""Of saved settings; another one is refused by name."""

PASSED_ON = {"transformers_version", "name_or_path", "torch_dtype", "attn_implementation"}
"""Keys that transformers itself adds to settings."""

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list of texts",
    dict: "named values",
    NoneType: "null",
}

M = TypeVar("M", bound="CheckedModel")

INHERITED = {field.name for field in fields(PreTrainedConfig)}


class CheckedConfig(PreTrainedConfig):
    """Settings that are all known, of their type, and at least 1 where they are whole numbers.

    Raises:
        ValueError: naming the setting and its value.
    """

    format_version: int = FORMAT_VERSION

    def __post_init__(self, **kwargs: Any) -> None:
        name = type(self).__name__
        kind = kwargs.pop("model_type", self.model_type)
        if kind != self.model_type:
            raise ValueError(f"{name} is for {self.model_type} models, got settings of {kind!r}")
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"{name} reads settings of format {FORMAT_VERSION}, got {self.format_version!r}"
            )
        for key, value in sorted(kwargs.items()):
            if key not in PASSED_ON and not key.startswith("_"):
                raise ValueError(f"{name} has no setting named {key}, got {value!r} for it")
        super().__post_init__(**kwargs)
        for field in fields(self):
            if field.name not in INHERITED:
                _check_value(field.name, getattr(self, field.name), field.type)


def _check_value(name: str, value: object, kind: Any) -> None:
    if not _fits(value, kind):
        raise ValueError(f"{name} must be {_in_words(kind)}, got {value!r}")
    if kind in (int, int | None) and isinstance(value, int) and value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")


def _fits(value: object, kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(each, get_args(kind)[0]) for each in value)
    if get_origin(kind) is UnionType:
        return any(_fits(value, each) for each in get_args(kind))
    return type(value) in ((int, float) if kind is float else (kind,))  # True is no number here


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is UnionType:
        return " or ".join(map(_in_words, get_args(kind)))
    return NAMES[kind]


class CheckedModel(PreTrainedModel):
    """A model that is loaded whole, from its own kind of folder, or refused."""

    @classmethod
    def from_pretrained(cls: type[M], name: str | Path, *args: Any, **kwargs: Any) -> M:
        """Load a model from a local folder, or by its name from a hub; it comes in `eval` mode.

        Args:
            name: a `Path` is always local.
            args: passed on to transformers.
            kwargs: passed on to transformers.

        Raises:
            OSError: if nothing that can be read is there.
            ValueError: if it is a model of another kind, or its weights do not fill this one.
        """
        if isinstance(name, Path) or Path(name).is_dir():
            _refuse_another_kind(Path(name), cls.config_class.model_type)
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # refused below
        try:
            with _no_warnings_of_weights():
                model, report = super().from_pretrained(name, *args, **kwargs)
        except (OSError, SafetensorError) as error:
            raise OSError(
                f"no model can be read from {name}: {str(error).splitlines()[0]}"
            ) from error
        _refuse_other_weights(name, report)
        return model


@contextmanager
def _no_warnings_of_weights() -> Iterator[None]:
    """Keep transformers from printing a table of what the sentence of a refusal says."""
    logger = logging.getLogger("transformers.modeling_utils")
    before, logger.disabled = logger.disabled, True  # a level set on it makes it say yet more
    try:
        yield
    finally:
        logger.disabled = before


def _refuse_other_weights(name: str | Path, report: Mapping[str, Any]) -> None:
    for trouble in ("missing_keys", "unexpected_keys"):
        if report[trouble]:
            which = ", ".join(sorted(report[trouble]))
            raise ValueError(f"the weights in {name} have {trouble.replace('_', ' ')}: {which}")
    for key, saved, wanted in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"the weights in {name} do not fit the settings beside them: "
            f"{key} is {list(saved)} and must be {list(wanted)}"
        )


def _refuse_another_kind(folder: Path, kind: str) -> None:
    found = read_settings(folder, "config.json").get("model_type")
    if found != kind:
        raise ValueError(f"{folder} holds a model of the kind {found!r}, not {kind!r}")


def read_settings(folder: Path, file: str) -> dict[str, Any]:
    """Read a JSON file of settings in a saved model's folder.

    Raises:
        FileNotFoundError: if the folder or the file is not there.
        ValueError: if the file is not JSON with named values.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
    if not (folder / file).is_file():
        raise FileNotFoundError(f"{folder} holds no saved model, it has no {file}")
    try:
        settings = json.loads((folder / file).read_text())
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{folder / file} is not JSON with named values")
    return settings
