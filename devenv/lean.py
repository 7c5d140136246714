"""Imports libraries without what they import for features that nobody here uses: a short run is mostly imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any


@contextmanager
def without(unasked: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """In the block each module of `unasked` that is not there yet is a stand-in with these names alone; what is
    imported after it finds the real one."""
    stand_ins = {module: SimpleNamespace(**names) for module, names in unasked.items() if module not in sys.modules}
    sys.modules.update(stand_ins)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for module in stand_ins:
            sys.modules.pop(module, None)
