"""Sets of templates are known by name, and stand in the settings word by word."""

import pytest

from recipes.data_settings import DataSettings


def test_a_set_is_spelled_out_where_it_stands() -> None:
    templates = DataSettings(templates=("my {}", "open_clip:simple")).templates
    assert templates[0] == "my {}" and len(templates) == 8
    assert "a photo of the large {}." in templates
    assert DataSettings(templates=templates).templates == templates
    many = DataSettings(templates=("open_clip:openai",)).templates
    assert len(many) == len(set(many)) == 80 and "a sculpture of a {}." in many


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(ValueError, match=r"sets of templates are .*, got open_clip:best"):
        DataSettings(templates=("open_clip:best",))
