"""Mutants that lived once, by name: listed.toml.

Knows the table; must not know how a mutant is run. A text that is not in its file exactly once is an error: the
code has changed, and so must the table.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from .mutants import Mutant, read

_TABLE = Path(__file__).with_name("listed.toml")


@dataclass(frozen=True)
class Listed:
    """``grave``: users would lose certificates, or orders; ``tests``: what kills it, without the parameters of a test.

    ``equivalent`` says why no test can tell it from the code; such a one is not run, nor counted.
    """

    name: str
    file: str
    old: str
    new: str
    grave: bool = False
    tests: tuple[str, ...] = ()
    equivalent: str = ""

    def mutant(self) -> Mutant:
        """Raises LookupError if the text is not there, or more than once."""
        whole = read(self.file)
        if (count := whole.count(self.old.encode())) != 1:
            raise LookupError(f"{self.name}: its text is {count} times in {self.file}")
        return Mutant(self.file, whole.index(self.old.encode()), self.old, self.new, self.name)


def load() -> list[Listed]:
    """Return the table, in its order."""
    table = tomllib.loads(_TABLE.read_text())
    return [Listed(**{**each, "tests": tuple(each.get("tests", ()))}) for each in table["mutant"]]
