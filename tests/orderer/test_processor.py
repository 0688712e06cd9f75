"""The processor: the same pixels as in training, and captions that fit."""

import io
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data import decode_image, fit_image
from orderer import OrdererProcessor


@pytest.fixture
def processor() -> OrdererProcessor:
    return OrdererProcessor(image_size=16, context_length=8)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("size", [(40, 25), (25, 40), (16, 16)])
def test_it_reads_an_image_as_training_did(
    processor: OrdererProcessor, mode: str, size: tuple[int, int]
) -> None:
    levels = torch.randint(0, 256, (size[1], size[0], 4), dtype=torch.uint8)
    image = Image.fromarray(levels.numpy(), "RGBA").convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    trained_on = torch.from_numpy(fit_image(decode_image(file.getvalue()), 16).copy())
    assert torch.equal(processor.pixels([image])[0], trained_on.permute(2, 0, 1))


def test_drawing_undoes_reading(processor: OrdererProcessor) -> None:
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    drawn = processor.images(pixels / 127.5 - 1)
    assert torch.equal(processor.pixels(drawn), pixels)


def test_captions_are_padded_to_the_longest(processor: OrdererProcessor) -> None:
    text = processor.text(["a cat", "a cat on a mat"])
    assert text.shape == (2, 7)
    assert text[0].tolist() == [*processor.text(["a cat"])[0].tolist(), 0, 0, 0]
    assert text.argmax(dim=1).tolist() == [3, 6]


def test_it_spells_as_open_clip_does(processor: OrdererProcessor) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    captions = ["a cat", "A Dog, running &amp; barking"]
    theirs = SimpleTokenizer(context_length=8)(captions)
    ours = processor.text(captions)
    assert torch.equal(torch.nn.functional.pad(ours, (0, 8 - ours.shape[1])), theirs)


@pytest.mark.parametrize("words", [1, 3, 5, 6, 7, 8, 20])
def test_a_caption_fits_if_it_is_not_refused(processor: OrdererProcessor, words: int) -> None:
    caption = " ".join(["cat"] * words)
    if processor.fits(caption):
        assert processor.text([caption]).shape[1] <= processor.context_length
    else:
        with pytest.raises(ValueError, match="reads at most"):
            processor.text([caption])


def test_a_caption_longer_than_the_context_is_refused(processor: OrdererProcessor) -> None:
    with pytest.raises(
        ValueError, match=r"'a cat on a mat by a door' has 8 word pieces.* at most 6"
    ):
        processor.text(["a cat on a mat by a door"])


def test_equal_captions_have_equal_identities(processor: OrdererProcessor) -> None:
    one, two, three = processor.identities(["a cat", "a dog", "a cat"]).tolist()
    assert one == three != two


def test_it_comes_back_as_it_was_saved(processor: OrdererProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        again = OrdererProcessor.from_pretrained(name)
        assert (again.image_size, again.context_length) == (16, 8)


def test_what_it_saves_is_what_push_to_hub_uploads(
    processor: OrdererProcessor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: list[str] = []

    def upload(self: object, folder: str, *_: object, **__: object) -> None:
        uploaded.extend(sorted(path.name for path in Path(folder).iterdir()))

    hub = "transformers.utils.hub"
    monkeypatch.setattr(f"{hub}.hf_api", FakeHub)
    monkeypatch.setattr(f"{hub}.create_and_tag_model_card", lambda *_, **__: FakeCard())
    monkeypatch.setattr(OrdererProcessor, "_upload_modified_files", upload)
    processor.push_to_hub("somebody/some-orderer")
    assert uploaded == ["preprocessor_config.json"]


class FakeHub:
    repo_id = "somebody/some-orderer"

    def create_repo(self, *_: object, **__: object) -> "FakeHub":
        return self


class FakeCard:
    def save(self, path: str) -> None:
        pass


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        OrdererProcessor.from_pretrained(tmp_path / "nowhere")


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"it has no preprocessor_config\.json"):
        OrdererProcessor.from_pretrained(tmp_path)


def test_grey_of_16_bits_keeps_its_levels() -> None:
    deep = Image.fromarray(np.array([[0, 257 * 100], [257 * 200, 65535]], np.uint16))
    pixels = OrdererProcessor(2, 8).pixels([deep])
    assert pixels[0, 0].tolist() == [[0, 100], [200, 255]]


def test_a_name_that_no_hub_knows_is_refused_in_one_line() -> None:
    with pytest.raises(OSError, match="no processor can be read from nobody/nothing") as refusal:
        OrdererProcessor.from_pretrained("nobody/nothing")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ("{", "is not JSON with named values"),
        ("[1]", "is not JSON with named values"),
        ('{"crop_size": 224}', "is of no orderer, it has crop_size"),
        (
            '{"image_size": "big", "context_length": 8}',
            "image_size must be a whole number of at least 1, got 'big'",
        ),
    ],
)
def test_settings_of_another_kind_are_refused(tmp_path: Path, saved: str, sentence: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(saved)
    with pytest.raises(ValueError, match=sentence):
        OrdererProcessor.from_pretrained(tmp_path)


def test_a_processor_goes_when_nobody_needs_it() -> None:
    processor = OrdererProcessor(image_size=16, context_length=8)
    processor.text(["a dog", "a dog", "a cat"])
    gone = weakref.ref(processor)
    del processor
    assert gone() is None
