"""What the saved models of every stage have in common: checked settings, and weights loaded whole.

transformers keeps an unknown setting, takes a value of any type, and puts random weights where a
file lacks some. Here each of these is refused in a sentence.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedConfig, PreTrainedModel

from .formats import Migration, up_to_date
from .header import is_of_weights, kinds_in
from .saved import (
    Saved,
    check_weights,
    find_saved,
    read_settings,
)

PASSED_ON = {"transformers_version", "name_or_path", "torch_dtype", "attn_implementation"}
"""Keys that transformers itself adds to settings."""

DOWNLOADING = {"token", "cache_dir", "local_files_only", "force_download"}
RESOLVED = {"_commit_hash", "code_revision"}
"""What AutoModel passes on of a download that is done by then."""

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[str]: "a list of texts",
    dict: "named values",
    list[int]: "a list of whole numbers",
    dict[str, Any]: "named values",
    NoneType: "null",
}

M = TypeVar("M", bound="CheckedModel")

INHERITED = {field.name for field in fields(PreTrainedConfig)}


class CheckedConfig(PreTrainedConfig):
    """Settings that are all known, of their type, and at least 1 where they are whole numbers.

    Raises:
        ValueError: naming the setting and its value.
    """

    format_version: int = 1
    """Of saved settings: a newer one is refused, an older one migrates."""
    migrations: ClassVar[Mapping[int, Migration]] = {}
    """From each older version to the next one."""

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Take settings as they were saved, by this version or an older one."""
        version, name = cls.format_version, cls.__name__
        if "auto_map" in config_dict:
            raise ValueError(f"{name} runs no code of a model's own, got auto_map")
        return super().from_dict(up_to_date(config_dict, name, version, cls.migrations), **kwargs)

    def __post_init__(self, **kwargs: Any) -> None:
        name = type(self).__name__
        kind = kwargs.pop("model_type", self.model_type)
        if kind != self.model_type:
            raise ValueError(f"{name} is for {self.model_type} models, got settings of {kind!r}")
        if self.format_version != type(self).format_version:
            raise ValueError(
                f"{name} takes settings of format {type(self).format_version}, "
                f"got {self.format_version!r}"
            )
        for key, value in sorted(kwargs.items()):
            if key not in PASSED_ON and not key.startswith("_"):
                near = get_close_matches(key, [field.name for field in fields(self)], n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name} has no setting named {key}, got {value!r} for it{hint}")
        super().__post_init__(**kwargs)
        for field in fields(self):
            if field.name not in INHERITED:
                _check_value(field.name, getattr(self, field.name), field.type)

    def own(self) -> dict[str, Any]:
        """The settings of this kind of model, without those that transformers adds to all."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in INHERITED}


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
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(isinstance(name, str) for name in value)
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

    saved: Saved | None = None
    """Where a loaded model comes from; None for one that was made here."""

    @classmethod
    def from_pretrained(
        cls: type[M],
        name: str | Path,
        *args: Any,
        revision: str | None = None,
        subfolder: str = "",
        **kwargs: Any,
    ) -> M:
        """Load a model from a local folder, or by its name from a hub; it comes in `eval` mode.

        Args:
            name: a `Path` is always local.
            args: passed on to transformers.
            revision: commit, tag or branch of a hub's repository; `saved.commit` is what it was.
            subfolder: of the folder or repository.
            kwargs: those of a download, see `find_saved`; others are passed on to transformers.

        Raises:
            OSError: if nothing that can be read is there.
            ValueError: if it is a model of another kind, wants code or pickles of its own, or its
                weights do not fill this model with numbers.
        """
        if kwargs.pop("trust_remote_code", False):
            raise ValueError(f"{cls.__name__} runs no code of a model's own, got trust_remote_code")
        options = {key: kwargs.pop(key) for key in DOWNLOADING & kwargs.keys()}
        saved = find_saved(name, "model", revision=revision, subfolder=subfolder, **options)
        _refuse_another_kind(saved.folder, cls.config_class.model_type)
        files = check_weights(saved)
        kwargs = {key: value for key, value in kwargs.items() if key not in RESOLVED}
        kwargs |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # refused below
        kwargs |= {"use_safetensors": True, "local_files_only": True}
        try:
            with no_warnings_of_weights():
                model, report = super().from_pretrained(saved.folder, *args, **kwargs)
        except (OSError, SafetensorError) as error:
            raise OSError(f"no model can be read from {name}: {_damage(files, error)}") from error
        _refuse_other_weights(name, report)
        _refuse_other_kinds(name, files, model)
        _refuse_what_is_no_number(name, model)
        model.saved = saved
        return model


def _damage(files: Iterable[Path], error: Exception) -> str:
    """What is wrong, and with which file, which neither of the two libraries says."""
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as damage:
            return f"{file.name}: {str(damage).splitlines()[0]}"
    return str(error).splitlines()[0]


@contextmanager
def no_warnings_of_weights() -> Iterator[None]:
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


def _refuse_other_kinds(name: str | Path, files: Iterable[Path], model: PreTrainedModel) -> None:
    wanted = model.state_dict()
    for file in files:
        try:
            kinds = kinds_in(file)
        except ValueError as error:
            raise ValueError(f"the weights in {name} are damaged: {error}") from error
        for key, kind in sorted(kinds.items()):
            if key in wanted and wanted[key].is_floating_point() != is_of_weights(kind):
                raise ValueError(
                    f"the weights in {name} do not fit the settings beside them: {key} is of "
                    f"{kind} and must be of {wanted[key].dtype}"
                )


def _refuse_what_is_no_number(name: str | Path, model: PreTrainedModel) -> None:
    for key, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            count = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"the weights in {name} are damaged: {count} of the {tensor.numel()} values of "
                f"{key} are NaN or infinite"
            )


def _refuse_another_kind(folder: Path, kind: str) -> None:
    found = read_settings(folder, "config.json").get("model_type")
    if found != kind:
        raise ValueError(f"{folder} holds a model of the kind {found!r}, not {kind!r}")
