"""What libraries would say on their own while a run speaks for itself."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No bars for reading and writing weights, and no notes on what transformers will rename one day."""
    from datasets.utils.logging import disable_progress_bar as no_bars_for_data
    from transformers.utils import logging

    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    no_bars_for_data()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers|peft")
        try:
            yield
        finally:
            if had_bars:
                logging.enable_progress_bar()
