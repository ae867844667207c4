"""Where things are. A test makes a Guide of its own in an empty folder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml

from docs._tools.problems import ROOT

LANGUAGES = ("zh", "en")


@dataclass(frozen=True)
class Guide:
    """The folders of one guide."""

    root: Path = ROOT

    @property
    def docs(self) -> Path:
        """Prose, one folder a language, and what the languages share."""
        return self.root / "docs"

    @property
    def build(self) -> Path:
        """Everything that can be made again."""
        return self.root / "build"

    @property
    def executed(self) -> Path:
        """Executed notebooks, the cache of outputs."""
        return self.build / "executed"

    @property
    def site(self) -> Path:
        """The last good site."""
        return self.root / "site"

    @cached_property
    def tags(self) -> dict:
        """The closed list of tags."""
        return self._yaml("tags.yml") or {}

    @cached_property
    def sources(self) -> dict:
        """Citation key → what is cited."""
        return self._yaml("sources.yml") or {}

    @cached_property
    def glossary(self) -> list:
        """The agreed terms."""
        return self._yaml("glossary.yml") or []

    def _yaml(self, name: str):
        path = self.docs / name
        return yaml.safe_load(path.read_text("utf-8")) if path.exists() else None
