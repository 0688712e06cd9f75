"""The tokenizer of a text encoder that comes from elsewhere: one file of rules, and no code."""

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.processors import Sequence as Several
from tokenizers.processors import TemplateProcessing

from .saved import read_settings

FILE = "tokenizer.json"
SETTINGS = "tokenizer_config.json"


class LocalTokenizer:
    """Captions to word pieces, the last of which is `end`, and no other."""

    def __init__(self, rules: Tokenizer) -> None:
        rules.no_padding()
        rules.no_truncation()
        self.rules = rules
        self.added = len(rules.encode("").ids)
        """Pieces that every text has, the end among them."""
        self.end = rules.encode("").ids[-1]
        self.pieces = rules.get_vocab_size()

    def encode(self, caption: str) -> list[int]:
        return self.rules.encode(caption).ids

    def save(self, folder: Path) -> None:
        self.rules.save(str(folder / FILE))

    @classmethod
    def read(cls, folder: Path) -> "LocalTokenizer":
        """Read the rules in a folder; one that lets texts end anyhow is given its own end piece.

        Raises:
            FileNotFoundError: if there are none.
            ValueError: if they cannot be read, want code of their own, or have no end piece.
        """
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {FILE}, and no other tokenizer is read")
        try:
            rules = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path} holds no tokenizer: {str(error).splitlines()[0]}") from error
        rules.no_padding()
        settings = tokenizer_settings(folder)
        ended = rules.encode("").ids[-1:]
        if not ended or ended != rules.encode("a").ids[-1:]:
            _append_end(rules, settings, folder)
        return cls(rules)


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """What a folder says of its tokenizer beside the rules; may be nothing."""
    return read_settings(folder, SETTINGS) if (folder / SETTINGS).is_file() else {}


def _append_end(rules: Tokenizer, settings: dict[str, Any], folder: Path) -> None:
    end = settings.get("eos_token")
    end = end.get("content") if isinstance(end, dict) else end
    number = rules.token_to_id(end) if end else None
    if number is None:
        raise ValueError(
            f"texts of the tokenizer in {folder} have no end: {SETTINGS} must name an eos_token, "
            f"got {end!r}"
        )
    ending = TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, number)]
    )
    before = rules.post_processor
    rules.post_processor = ending if before is None else Several([before, ending])
