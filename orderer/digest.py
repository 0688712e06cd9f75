"""Names for weights: sha256 over settings and tensors, so that what depends on them is bound."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def digest(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash settings, and the names, dtypes and bytes of tensors, in the order of their names."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype}".encode())
        found.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
