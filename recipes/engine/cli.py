"""From the command line to a recipe's config: YAML files, then `--a.b=c`; mistakes in a sentence.

Exit codes: 0 done (a run that was asked to stop and saved included, where `preempted_code` names no
other), 1 a full disk, a loss that is not finite, or defects from a recipe that looks for them, 2
bad input, 3 a process gone from those that train together, 4 a stage 3 that broke a limit of its
own, and saved, 130 interrupted by hand; everything else is a fault of the program and keeps its
traceback.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import pairwise, takewhile
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import jsonargparse
import yaml
from safetensors import SafetensorError

from .files import FULL

C = TypeVar("C")
STOPPED_ITSELF = 4
"""Exit code of a training that ended before its time, by a limit of its own, and saved."""
MOST_VALUES = 100_000
"""In a config file; ours have fewer than a hundred."""
OURS = frozenset({"orderer", "ar", "data", "recipes"})

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class StoppedItself(Exception):
    """A training found that going on would harm, and has saved what was good."""


def run(
    main: Callable[[C], object], config_class: type[C], argv: Sequence[str] | None = None
) -> None:
    """Read the config of a recipe and start it; bad input ends with exit code 2 and one sentence.

    Args:
        main: the recipe; the docstring of its module is the help text.
        config_class: a dataclass, nested as deep as you like.
        argv: arguments; those of the process by default.
    """
    try:
        config = _read(main, config_class, sys.argv[1:] if argv is None else argv)
    except (ValueError, argparse.ArgumentError) as error:
        _refuse(_readable(str(error), config_class))
    try:
        main(config)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except StoppedItself as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(STOPPED_ITSELF) from None
    except RuntimeError as error:
        from .processes import GONE, is_of_another_process  # torch: a refusal need not wait for it

        if not is_of_another_process(error):
            raise
        print(
            f"error: a process that trains with this one is gone or stalled: {_line(error)}",
            file=sys.stderr,
        )
        raise SystemExit(GONE) from None
    except (ValueError, OSError, FloatingPointError, SafetensorError) as error:
        if isinstance(error, FloatingPointError) or _is_full(error):
            print(f"error: {_sentence(error)}", file=sys.stderr)
            raise SystemExit(1) from None
        if not _is_ours(error):
            raise
        _refuse(_sentence(error))


def _is_full(error: Exception) -> bool:
    """Whether there is no room: safetensors says it in words of its own."""
    if isinstance(error, SafetensorError):
        return any(f"(os error {code})" in str(error) for code in FULL)
    return getattr(error, "errno", None) in FULL


def with_folder(arguments: Sequence[str]) -> list[str]:
    """Read a first word as the folder."""
    if arguments and not arguments[0].startswith("-"):
        return [f"--folder={arguments[0]}", *arguments[1:]]
    return list(arguments)


def with_words(arguments: Sequence[str], setting: str) -> list[str]:
    """Read leading words as the values of a setting."""
    words = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = list(arguments[len(words) :])
    return [*options, f"--{setting}={json.dumps(words)}"] if words else options


def _read(main: Callable[[C], object], config_class: type[C], argv: Sequence[str]) -> C:
    types = dict(_settings(config_class))
    module = sys.modules[main.__module__]
    program = f"python -m {module.__spec__.name}" if module.__spec__ else None
    parser = _parser(program, module.__doc__, config_class)  # type: ignore[arg-type]  # hashable
    arguments = list(_spell_out(argv, {name for name, kind in types.items() if kind is bool}))
    for path in _config_files(arguments):
        _check_file(path, config_class)
    values = vars(parser.instantiate(parser.parse_args(arguments)))
    return config_class(**{field.name: values[field.name] for field in _fields(config_class)})


@cache
def _parser(
    program: str | None, about: str | None, config_class: type
) -> jsonargparse.ArgumentParser:
    """Of a recipe; what it parses leaves it as it is."""
    parser = jsonargparse.ArgumentParser(
        prog=program,
        usage="%(prog)s [--config FILE] [--a.b=c ...]",
        description=about,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action="config", help="a YAML file; of several, later ones win")
    parser.add_class_arguments(config_class)
    return parser


class _HelpFormatter(jsonargparse.DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of a recipe's docstring."""


def _spell_out(argv: Sequence[str], switches: set[str]) -> Iterator[str]:
    """A bare `--resume` means `--resume=true`."""
    for argument, following in pairwise([*argv, "--"]):
        is_switch = argument.startswith("--") and argument[2:] in switches
        yield f"{argument}=true" if is_switch and following.startswith("--") else argument


def _config_files(arguments: Sequence[str]) -> Iterator[Path]:
    for argument, following in pairwise([*arguments, ""]):
        if argument.startswith("--config="):
            yield Path(argument.removeprefix("--config="))
        elif argument == "--config" and following:
            yield Path(following)


def _check_file(path: Path, config_class: type) -> None:
    """Refuse a YAML file here, where its name is known."""
    if not path.is_file():
        raise ValueError(f"there is no config file {path}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        count = _expanded(values, {})
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"config file {path}, line {line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"config file {path} cannot be read: {error}") from error
    if count > MOST_VALUES:
        raise ValueError(f"config file {path} must hold at most {MOST_VALUES} values, got {count}")
    _check_keys(values, config_class, "", path)


def _expanded(values: object, known: dict[int, int]) -> int:
    """How many values a file has once its aliases are written out, which a line can double."""
    if not isinstance(values, Mapping | list):
        return 1
    if id(values) not in known:
        inside = values.values() if isinstance(values, Mapping) else values
        known[id(values)] = 1 + sum(_expanded(each, known) for each in inside)
    return known[id(values)]


def _check_keys(values: object, config_class: type, name: str, path: Path) -> None:
    if not isinstance(values, Mapping):
        what = name.removesuffix(".") or "the file"
        raise ValueError(f"in config file {path}, {what} must hold keys and values, got {values}")
    types = get_type_hints(config_class)
    for key, value in values.items():
        known = [field.name for field in _fields(config_class)]
        if key not in known:
            hint = _meant(str(key), known)
            raise ValueError(f"in config file {path}, unknown key {name}{key}{hint}")
        if dataclasses.is_dataclass(types[key]):
            _check_keys(value, types[key], f"{name}{key}.", path)


def _fields(config_class: type) -> tuple["dataclasses.Field[Any]", ...]:
    return dataclasses.fields(config_class)


def _settings(config_class: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The dotted name and type of every setting, nested ones too."""
    types = get_type_hints(config_class)
    for field in _fields(config_class):
        kind = types[field.name]
        if dataclasses.is_dataclass(kind):
            yield from _settings(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}", kind


def _readable(message: str, config_class: type) -> str:
    """One sentence out of the paragraph in which the parser refuses a value."""
    found = re.search(r'Parser key "([^"]+)":.*[Vv]alue: (.*)$', message, flags=re.DOTALL)
    kind = dict(_settings(config_class)).get(found[1]) if found else None
    if found and kind:
        return f"{found[1]} must be {_type_name(kind)}, got {found[2].strip()}"
    unknown = re.search(r"unrecognized arguments: --([\w.]+)", message)
    return message + (_meant(unknown[1], dict(_settings(config_class)), "--") if unknown else "")


def _meant(name: str, known: Iterable[str], dashes: str = "") -> str:
    """The known name that is nearest to a wrong one, as the end of a sentence, if any is near."""
    near = get_close_matches(name, list(known), n=1, cutoff=0.75)
    return f"; did you mean {dashes}{near[0]}?" if near else ""


def _type_name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is tuple:
        each, *others = get_args(kind)
        number = "" if Ellipsis in others else f" of {1 + len(others)}"
        return f"a list{number} in brackets, each {_type_name(each)}"
    name = kind.__name__ if type(kind) is type else str(kind)
    return name.replace("typing.", "").replace("None", "null")


def _is_ours(error: Exception) -> bool:
    """Whether our own code refused: then it is about the input, and the sentence says all.

    An OSError may come through the standard library (pathlib): it names its file by itself.
    """
    packages = [_top_package(frame) for frame in _frames(error.__traceback__)]
    if isinstance(error, OSError):
        packages = [name for name in packages if name not in sys.stdlib_module_names]
    return bool(packages) and packages[-1] in OURS


def _frames(traceback: TracebackType | None) -> Iterator[Mapping[str, Any]]:
    while traceback:
        yield traceback.tb_frame.f_globals
        traceback = traceback.tb_next


def _top_package(module: Mapping[str, Any]) -> str:
    # A recipe is called __main__, but its package is still recipes.
    name = module.get("__package__") or module.get("__name__") or ""
    return str(name).partition(".")[0]


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _refuse(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)
