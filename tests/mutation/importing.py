"""Puts a mutant into the import of its module: for what cannot be changed afterwards.

Knows Python's import; must not know tests. No file is written in the checkout.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

from .mutants import ROOT, Mutant

_PLUGINS = ("pytest", "_pytest", "hypothesis", "_hypothesis", "xdist")


def import_wrong(mutant: Mutant) -> None:
    """From now on, this process imports the mutant; raises RuntimeError if its module is there already."""
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant} cannot be imported: {mutant.module} is imported already")
    sys.meta_path.insert(0, _Finder(mutant))


def libraries() -> list[str]:
    """Return the modules in this process that may be there before a fork: no project's, none that pytest rewrites."""
    return [
        name
        for name, module in sys.modules.items()
        if (spec := getattr(module, "__spec__", None)) is not None
        and spec.name == name
        and not name.startswith(_PLUGINS)
        and not _is_ours(spec)
    ]


def _is_ours(spec: importlib.machinery.ModuleSpec) -> bool:
    """Say whether a module is in the checkout, as the scripts are too, which import the addon."""
    places = [place for place in (spec.origin, *(spec.submodule_search_locations or ())) if place is not None]
    return any(Path(place).is_relative_to(ROOT) and not Path(place).is_relative_to(sys.prefix) for place in places)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.module:
            return None
        file = str(ROOT / self._mutant.path)
        return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, file, self._mutant.source))


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = compile(self._source, self.path, "exec", dont_inherit=True)
        return code
