"""Let a CPU torch live beside a CUDA torchvision.

The default package index offers torchvision as a CUDA build only. Beside a CPU torch its compiled
operators are not loaded, and `import torchvision` then stops at the first one it describes, which
breaks open_clip, timm, `accelerate launch` and every transformers model class. Declaring the two
operators' schemas first is enough; calling them still fails, and nothing here calls them.

Our packages declare them at import. Programs that import torchvision before us (`accelerate`) need
it at the start of the interpreter: `python orderer/torchvision_operators.py` copies this file into
the environment it runs in, with a hook that waits for torchvision to be imported.
"""

import shutil
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
HOOK = "_sightline_torchvision"


def declare_missing_operators() -> None:
    """Declare torchvision's operators where its compiled ones cannot load; else do nothing."""
    if not _torchvision_is_a_cuda_build():
        return
    import torch

    if torch.version.cuda is None and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            library.define(schema)
        vars(torch.ops.torchvision)["sightline"] = (
            library  # the schemas live as long as this object
        )


def _torchvision_is_a_cuda_build() -> bool:
    spec = find_spec("torchvision")  # finds it without importing it
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and "+cu" in version.read_text()


class DeclareFirst(MetaPathFinder):
    """Declares the operators when torchvision is about to be imported; finds nothing itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            declare_missing_operators()
        return None


def install_hook() -> None:
    """Make every start of this environment's interpreter wait for torchvision."""
    packages = Path(sysconfig.get_path("purelib"))
    shutil.copyfile(__file__, packages / f"{HOOK}.py")
    line = f"import sys, {HOOK}; sys.meta_path.insert(0, {HOOK}.DeclareFirst())\n"
    (packages / f"{HOOK}.pth").write_text(line)


if __name__ == "__main__":
    install_hook()
