"""A good image, and bytes that do harm to who trusts them."""

import io
import pickle

import numpy as np

from data import encode_image

IMAGE = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
PNG = encode_image(IMAGE)
DEEP = b"[" * 100_000 + b"]" * 100_000
"""Too deep for a parser that calls itself."""


class Canary:
    """Pickled, it writes a file when anybody unpickles it."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("canary", "w")


POISON = pickle.dumps(Canary())


def array_of_objects() -> bytes:
    """An .npy file that is read by unpickling."""
    file = io.BytesIO()
    np.save(file, np.array([Canary()], dtype=object), allow_pickle=True)
    return file.getvalue()
