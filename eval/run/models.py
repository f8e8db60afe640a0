"""The model of a run and its fine-tuned checkpoints, one of which is in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from xtremely.engine.hub.locate import display_name
from xtremely.engine.runtime import Engine

Load = Callable[..., Engine]  # a model's name or folder, device=, backend= -> the engine


@dataclass(frozen=True)
class Models:
    """How the engines of a run are loaded.

    Attributes:
        model: name or folder of the model.
        load: loads the model or a checkpoint.
        checkpoints: folder with a fine-tuned model for every fine-tuning; None if ``model`` has
            the head itself.
    """

    model: str
    load: Load
    checkpoints: Path | None

    def engine(self, checkpoint: str | None, loaded: Engine | None) -> Engine:
        """The engine of the model or a checkpoint; ``loaded`` is reused if it is the one."""
        if loaded is not None and loaded.checkpoint == checkpoint:
            return loaded
        if checkpoint is None or self.checkpoints is None:
            return self.load(self.model)
        engine = self.load(str(self.checkpoints / checkpoint))
        return replace(engine, name=display_name(self.model), checkpoint=checkpoint)
