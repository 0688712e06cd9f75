"""Let a CPU torch live beside a CUDA torchvision.

The default package index offers torchvision as a CUDA build only. Beside a CPU torch its compiled
operators are not loaded, and `import torchvision` then stops at the first one it describes, which
breaks open_clip and every transformers model class. Declaring the two operators' schemas first is
enough; calling them still fails, and nothing here calls them.
"""

from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

_library: torch.library.Library | None = None  # the schemas live as long as this object


def declare_missing_operators() -> None:
    """Declare torchvision's operators where its compiled ones cannot load; else do nothing."""
    global _library
    if _library is None and torch.version.cuda is None and _torchvision_is_a_cuda_build():
        _library = torch.library.Library("torchvision", "DEF")
        for schema in SCHEMAS:
            _library.define(schema)


def _torchvision_is_a_cuda_build() -> bool:
    spec = find_spec("torchvision")  # finds it without importing it
    if spec is None or spec.origin is None:
        return False
    version = Path(spec.origin).with_name("version.py")
    return version.is_file() and "+cu" in version.read_text()
