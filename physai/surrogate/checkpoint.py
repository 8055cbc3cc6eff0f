"""Resumable training: a loop whose state survives Ctrl-C, kill -9 and a restart, bit for bit."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from physai.errors import InputError
from physai.progress import Progress, silent

T = TypeVar("T")
SECONDS_BETWEEN_SAVES = 10.0


class Checkpoints:
    """Training states of an artefact that is not finished yet, one series a stage.

    Args:
        folder: where to keep them, beside the artefact (None: nowhere, a stop loses the work).
        identity: what the training depends on (settings, seed, hashes of its inputs), as JSON. A
            state of another identity is discarded, never continued.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any] | None = None) -> None:
        self.folder = None if folder is None else folder.absolute()
        self.identity = dict(identity or {})
        begun = self.folder is not None and self.folder.exists()
        self._started = None if begun else time.monotonic()

    @property
    def seconds(self) -> float | None:
        """Seconds since training began; None where it began in another process."""
        return None if self._started is None else time.monotonic() - self._started

    def run(
        self,
        stage: str,
        state: T,
        total: int,
        advance: Callable[[int, T], T],
        progress: Progress = silent,
    ) -> T:
        """Apply `state = advance(index, state)` for index 0 to total - 1, from the newest state.

        `advance` must be a function of its arguments alone, so that a resumed run equals one that
        went straight through. The state is saved every 10 s, at Ctrl-C and at the end.

        Raises:
            InputError: the newest checkpoint is damaged, or the disk is full.
        """
        if self.folder is None:
            for index in range(total):
                progress(stage, index, total)
                state = jax.block_until_ready(advance(index, state))  # progress tells the truth
            progress(stage, total, total)
            return state
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        with ocp.CheckpointManager(self.folder / stage, options=options) as manager:
            first, state = self._restore(manager, state)
            saved, index = time.monotonic(), first
            try:
                for index in range(first, total):
                    progress(stage, index, total)
                    state = jax.block_until_ready(advance(index, state))
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES and index + 1 < total:
                        self._save(manager, index + 1, state)
                        saved = time.monotonic()
            except KeyboardInterrupt:
                if index > first:
                    self._save(manager, index, state)
                raise
            if first < total:
                self._save(manager, total, state)
            progress(stage, total, total)
        return state

    def remove(self) -> None:
        """Delete all states: the finished artefact has taken their place."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _restore(self, manager: ocp.CheckpointManager, fresh: T) -> tuple[int, T]:
        step = manager.latest_step()
        if step is None:
            return 0, fresh
        leaves, structure = jax.tree.flatten(fresh)
        # The fresh state tells where arrays go, not the saved one: devices may be others by now.
        abstract = _numbered(
            [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves]
        )
        try:
            meta = manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))
            if meta["meta"] != self.identity:
                for old in manager.all_steps():
                    manager.delete(old)
                return 0, fresh
            args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract))
            found = manager.restore(step, args=args)["state"]
            restored = [found.get(f"{i:04d}", leaf) for i, leaf in enumerate(leaves)]
            return step, jax.tree.unflatten(structure, restored)
        except Exception as error:
            raise InputError(
                f"{self.folder}: checkpoint {step} is damaged ({type(error).__name__}). "
                "Remove that folder to train from the start."
            ) from error

    def _save(self, manager: ocp.CheckpointManager, step: int, state: Any) -> None:
        if step in manager.all_steps():
            return
        try:
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_numbered(jax.tree.leaves(state))),
                    meta=ocp.args.JsonSave(self.identity),
                ),
            )
        except OSError as error:
            raise InputError(f"{self.folder}: cannot save the training state: {error}") from error


def _numbered(leaves: list[Any]) -> dict[str, Any]:
    """Name leaves by their order: orbax then needs to know nothing of our own tree types.

    Empty ones are left out, since orbax refuses them: a plant without activations has some.
    """
    return {f"{i:04d}": leaf for i, leaf in enumerate(leaves) if leaf.size}
