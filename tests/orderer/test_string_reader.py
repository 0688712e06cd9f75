"""A reader of strings: it learns what tokens say, and counts what is there only."""

import pytest
import torch

from orderer.evaluation import StringReader, StringReading, recovered, spelt

ALPHABET = "ABCD"


def test_a_text_is_spelt_and_then_nothing() -> None:
    assert spelt(["BAD", "C"], ALPHABET, 4).tolist() == [[1, 0, 3, -1], [2, -1, -1, -1]]


@pytest.mark.parametrize("text", ["ABCDA", "AE"])
def test_what_cannot_be_spelt_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"at most 4 characters of ABCD, got '{text}'"):
        spelt([text], ALPHABET, 4)


def test_only_characters_that_are_there_count_each_at_its_length() -> None:
    there = spelt(["AB", "AB", "ABCD"], ALPHABET, 4)
    read = torch.tensor([[0, 1, 3, 3], [0, 0, 3, 3], [0, 1, 2, 2]])
    assert recovered(read, there) == {2: 0.75, 4: 0.75}


def test_fifty_steps_learn_to_read_tokens_that_spell() -> None:
    characters = torch.randint(4, (64, 3))
    tokens = torch.nn.functional.one_hot(characters, 4).float()  # [N, K, D]
    reader = StringReader(tokens, places=3, characters=4, width=32)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        reader.loss(tokens, characters).backward()
        optimizer.step()
    assert recovered(reader.read(tokens), characters) == {3: 1.0}


def test_a_channel_that_never_changes_is_no_trouble() -> None:
    tokens = torch.randn(8, 2, 3)
    tokens[:, 0, 0] = 5.0
    assert StringReader(tokens, 2, 4, 16)(tokens).isfinite().all()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, got 0.0"),
        ({"levels": ()}, r"levels must hold numbers of at least 1, got \[\]"),
        ({"levels": (0, 1)}, r"levels must hold numbers of at least 1, got \[0, 1\]"),
        ({"codes": 9, "strings": 8}, "codes must be at most the 8 strings .* got 9"),
    ],
)
def test_what_cannot_be_read_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        StringReading(**settings)  # type: ignore[arg-type]
