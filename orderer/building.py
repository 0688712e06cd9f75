"""Parts made from settings that a saved model brings, whoever wrote them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def built_from(setting: str, what: str) -> Iterator[None]:
    """Turn what libraries raise at settings that build nothing into one sentence.

    Raises:
        ImportError: if a library is not installed.
        ValueError: naming the setting.
    """
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # every library has its own kinds
        said = " ".join(str(error).split())
        reason = said if isinstance(error, ValueError) else f"{type(error).__name__} {said}"
        raise ValueError(f"{setting} builds no {what}: {reason}") from error
