"""Optional packages, what is said where one is missing, and errors in words."""

from __future__ import annotations

from importlib.util import find_spec

PARQUET = ("pyarrow", "Parquet", "'holitom[corpora]', or use a .jsonl file")
"""What :func:`require` is asked for: the largest package after torch, which only tables of many rows use."""


def require(module: str, what: str, install: str | None = None) -> None:
    """Refuses to begin without an optional package.

    Args:
        module: that will be imported.
        what: needs it.
        install: what pip is to install; None: the module's name.

    Raises:
        ImportError: says how to install it.
    """
    try:
        found = find_spec(module) is not None
    except (ValueError, ImportError):  # a module without a spec, or one that was set to None
        found = False
    if not found:
        raise ImportError(f"{what} needs {module}: pip install {install or module}")


def sentence(error: BaseException) -> str:
    """An error in words, without the number that an operating system gives it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error).strip() or type(error).__name__
