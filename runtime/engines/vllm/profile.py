"""The profile of a model that vLLM serves elsewhere: the server says what it is, its files say how it talks."""

from dataclasses import dataclass, fields, replace
from pathlib import Path

from ...errors import ModelError
from ...hub import fetch_small_files
from ...profile import ModelProfile, load_profile
from ...resolve import is_hub_name
from .address import Address, parse_url
from .ask import Card, fetch_cards, run_blocking
from .config import VllmConfig

_ADVICE = "give --tokenizer a folder or a name on the Hub that has the model's tokenizer and config"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteProfile(ModelProfile):
    """``path`` is the folder with the tokenizer. ``model_id`` is what the servers at ``addresses`` call the model."""

    addresses: tuple[Address, ...]
    model_id: str


def remote_profile(
    spec: str, *, chat_template: str | None = None, tokenizer: str | None = None, config: VllmConfig | None = None
) -> RemoteProfile:
    """The profile of the model at ``vllm://…`` (blocking). Raises ModelError and ConfigError.

    The tokenizer and the templates are those of ``tokenizer`` when it is given, else of what the server has loaded,
    where that is a folder here or a name on the Hub, from where only the small files are fetched.
    """
    addresses, model_id = parse_url(spec)
    cards = run_blocking(fetch_cards(replace(config or VllmConfig(), addresses=addresses, model_id=model_id)))
    first, card = next(iter(cards.items()))
    profile = load_profile(_tokenizer_folder(card, tokenizer), chat_template=chat_template)
    known = {field.name: getattr(profile, field.name) for field in fields(profile)}
    known |= {
        "name": Path(card.model_id).name if card.model_id.startswith("/") else card.model_id,
        "format": "vllm",
        "context_length": min(each.context_length for each in cards.values()),
        "sources": {**profile.sources, "context_length": f"the server at {first}"},
    }
    return RemoteProfile(**known, addresses=addresses, model_id=card.model_id)


def _tokenizer_folder(card: Card, given: str | None) -> Path:
    source = given or card.root
    if not source:
        raise ModelError(f"vLLM does not say where {card.model_id} was loaded from: {_ADVICE}")
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if is_hub_name(source):
        return fetch_small_files(source)
    if given:
        raise ModelError(f"--tokenizer {given}: no such folder, and no name on the Hub")
    raise ModelError(f"{card.model_id} was loaded from {source}, which is not on this machine: {_ADVICE}")
