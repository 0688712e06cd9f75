"""Which folder may import which: recipes -> ar -> orderer, recipes -> data."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("orderer", "ar", "data", "recipes", "tests")
MAY_IMPORT = {
    "orderer": {"orderer"},
    "ar": {"ar", "orderer"},
    "data": {"data"},
    "recipes": {"recipes", "ar", "orderer", "data"},
}
SHARED_BY_STAGES = {
    "orderer.layers",
    "orderer.positions",
    "orderer.flow",
    "orderer.formats",
    "orderer.header",
    "orderer.inputs",
    "orderer.kmeans",
    "orderer.packed",
    "orderer.pieces",
    "orderer.pretrained",
    "orderer.saved",
    "orderer.transformers_towers",
    "orderer.weights",
    "orderer.writing",
}
"""What stage 2 takes from stage 1: parts that know no orderer."""


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[str]:
    """Absolute names of the modules, or of the names in them, that a file imports anywhere."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in FOLDERS}


def is_recipe(path: Path) -> bool:
    """A program: it has `main` and is started as one."""
    body = ast.parse(path.read_text()).body
    has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in body)
    return has_main and any(
        isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in body
    )


RECIPES = {module_name(path) for path in sources("recipes") if is_recipe(path)}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_arrows_run_one_way(folder: str) -> None:
    for path in sources(folder):
        for name in ours(path):
            assert name.split(".")[0] in MAY_IMPORT[folder], f"{module_name(path)} imports {name}"


def test_stage_2_takes_from_stage_1_only_what_knows_no_orderer() -> None:
    for path in sources("ar"):
        for name in ours(path):
            if name.startswith("orderer."):
                shared = ".".join(name.split(".")[:2])
                assert shared in SHARED_BY_STAGES, f"{module_name(path)} imports {name}"


def test_what_the_stages_share_knows_no_orderer() -> None:
    for module in SHARED_BY_STAGES:
        path = ROOT / f"{module.replace('.', '/')}.py"
        known = {".".join(name.split(".")[:2]) for name in ours(path)}
        assert known <= SHARED_BY_STAGES, f"{module} imports {known}"


def test_no_recipe_imports_another() -> None:
    for path in sources("recipes"):
        for name in ours(path):
            meant = {name, name.rpartition(".")[0]} & RECIPES
            assert not meant, f"{module_name(path)} imports {name}"


def test_the_engine_knows_no_model_and_no_data() -> None:
    for path in sources("recipes/engine"):
        for name in ours(path):
            assert name.startswith("recipes.engine"), f"{module_name(path)} imports {name}"


def test_imports_are_relative_inside_a_folder_and_absolute_between() -> None:
    for folder in ("orderer", "ar", "data"):
        for path in sources(folder):
            written = [
                node.module or ""
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom) and not node.level
            ]
            assert not [name for name in written if name.split(".")[0] == folder], path


def test_there_is_something_to_check() -> None:
    assert {"recipes.train_orderer", "recipes.train_ar", "recipes.write_tokens"} <= RECIPES
    assert "orderer.layers.portable_attention" in ours(ROOT / "ar" / "trunk.py")
    assert "orderer.config.OrdererConfig" in ours(ROOT / "orderer" / "encoder.py")
