import json
import math
import subprocess
from pathlib import Path

import pytest

from recipes.engine import results
from recipes.engine.results import provenance, write_json


def test_provenance_says_where_a_number_comes_from(tmp_path):
    found = provenance()
    assert found.keys() == {"commit", "versions", "hardware", "command", "date"}
    assert found["versions"]["torch"] and found["hardware"]["cores"] >= 1
    write_json(tmp_path / "a.json", found)


def test_a_missing_package_has_no_version():
    assert results._version("there-is-no-such-package") is None


def test_the_commit_tells_of_changes(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", *identity, *arguments]
        return subprocess.check_output(command, cwd=tmp_path, text=True).strip()

    monkeypatch.setattr(results, "__file__", str(tmp_path / "results.py"))
    assert provenance()["commit"] is None
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", "first")
    assert provenance()["commit"] == git("rev-parse", "HEAD")
    (tmp_path / "new.py").touch()
    assert provenance()["commit"] == git("rev-parse", "HEAD") + "+changes"


def test_a_result_file_reads_back(tmp_path):
    data = {"psnr": {"1": 20.5}, "names": ["é"], "commit": None}
    write_json(tmp_path / "new" / "a.json", data)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == data


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"a": {"b": math.nan}}, r"a\.b: it is nan"),
        ({"a": [1.0, -math.inf]}, r"a\[1\]: it is -inf"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_and_the_old_file_stays(data, name, tmp_path):
    path = Path(tmp_path / "a.json")
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match=rf"a\.json cannot hold {name}"):
        write_json(path, data)
    assert json.loads(path.read_text()) == {"a": 1}
