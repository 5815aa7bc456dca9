"""How a run ends: results.json says so, and the exit status."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_only

from perceiver.callbacks import Interrupted
from runner.report import write_results

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def signals_end_in_order() -> Iterator[None]:
    """SIGTERM exits with status 143 and Ctrl-C with 130, as shells have it, after all clean-up.

    During a fit `StopBySignal` says when.
    """

    def interrupt(signum: int, _: Any) -> None:
        raise Interrupted(signum)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.signal(one, interrupt) for one in _SIGNALS}
    try:
        yield
    except Interrupted as told:
        raise SystemExit(128 + told.signum) from None
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def results_told(path: Path, results: dict[str, Any]) -> Iterator[None]:
    """Write `results` with how the run ended: finished, interrupted or failed.

    Until then its `status` is running: a killed run leaves that.

    Args:
        path: of results.json.
        results: filled in by the body.
    """
    results["status"] = "running"
    _write(path, results)
    try:
        yield
        results["status"] = "finished"
    except Interrupted as told:
        results |= {"status": "interrupted", "error": str(told)}
        raise
    except Exception as error:
        results |= {"status": "failed", "error": str(error) or type(error).__name__}
        raise
    finally:
        _write(path, results)


@rank_zero_only
def _write(path: Path, results: dict[str, Any]) -> None:
    write_results(path, results)
