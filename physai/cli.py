"""The command line: one verb an arrow of the flow. `physai VERB --help` tells the options."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import tyro

from physai import __version__
from physai.console import stderr
from physai.errors import InputError

_ABOUT = """From a MuJoCo model to a controller that was verified in the true simulator.

plant + task -> rollout -> fit -> learn -> verify -> export. `run` does all of it, `design` changes
the machine itself. A verb that was stopped goes on when the same command is given again.
plant.py and task.py of a plant folder are code of its author and run as such. `physai --version`
tells the version."""


def main(arguments: list[str] | None = None) -> int:
    """Run a verb; return the exit status: 0 done, 1 a check failed, 2 bad input, 130 stopped."""
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"physai {__version__}")
        return 0
    try:
        _keep_compiled_code()
        from physai import verbs

        app = tyro.extras.SubcommandApp()
        for name, verb in verbs.VERBS.items():
            app.command(name=name)(verb)
        return int(app.cli(args=arguments, prog="physai", description=_ABOUT) or 0)
    except InputError as error:
        stderr.print(f"physai: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        stderr.print("physai: stopped. The same command goes on from here.", markup=False)
        return 130


def _keep_compiled_code() -> None:
    """Keep XLA's compiled code between calls, in the user's cache folder, if it can be written."""
    import jax

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "physai" / f"jax-{jax.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
