"""The tokenizer of a model's folder, run by the tokenizers library: text to ids, and ids to exact bytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import ModelError
from ..folder_configs import read_configs
from .encoder import Encoder, JsonEncoder
from .ends import ENDS_BY_NAME, plain_by_company
from .pieces import Pieces, encoded
from .vocabulary import TOKENIZER_JSON, TOKENIZER_MODEL, FolderVocabulary, read_vocabulary

if TYPE_CHECKING:
    from ..profile import ModelProfile


class FolderTokenizer:
    """A ``Tokenizer`` of the engine contract. Usable from any thread.

    ``num_rows`` is how many tokens the model knows, where that is more than the tokenizer: ids without a token have
    no bytes. ``ends`` are the ids at which the model is declared to end; those that end by their name come on top.
    """

    def __init__(
        self,
        vocabulary: FolderVocabulary,
        encoder: Encoder,
        *,
        bos_id: int | None,
        eos_id: int | None,
        ends: Iterable[int],
        num_rows: int = 0,
    ) -> None:
        self.vocab_size = max(num_rows, vocabulary.size)
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.add_bos = bool(vocabulary.first)
        self._vocabulary = vocabulary
        self._encoder = encoder
        self._source = Pieces(vocabulary)
        self._pieces: list[bytes | None] = [None] * self.vocab_size
        by_text = {token.text: token.id for token in vocabulary.added.values()}
        plain = frozenset(by_text[text] for text in plain_by_company(by_text) if text in by_text)
        named = frozenset(token_id for text, token_id in by_text.items() if text in ENDS_BY_NAME)
        self.eog_ids = frozenset(ends) | (named - plain)
        self._control = (frozenset(vocabulary.control.values()) - plain) | self.eog_ids

    def limit(self, num_rows: int) -> None:
        """Leave out ids for which the model has no row, such as a padding token that was added and never trained."""
        self.vocab_size = min(self.vocab_size, num_rows)
        self.eog_ids = frozenset(token_id for token_id in self.eog_ids if token_id < num_rows)

    def encode(self, text: str, *, add_special: bool = False, parse_special: bool = True) -> list[int]:
        """Ids of ``text``; see ``Tokenizer.encode``. A lone surrogate becomes a question mark."""
        ids = self._encoder.encode(encoded(text).decode(), parse_special) if text else []
        return [*self._vocabulary.first, *ids, *self._vocabulary.last] if add_special else ids

    def piece(self, token_id: int) -> bytes:
        """The bytes of one token; a control token's are its name."""
        piece = self._pieces[token_id]
        if piece is None:
            piece = self._pieces[token_id] = self._source[token_id]
        return piece

    def is_control(self, token_id: int) -> bool:
        """Whether the token is a control token, whose text is no part of an answer."""
        return token_id in self._control


def open_tokenizer(profile: "ModelProfile") -> FolderTokenizer:
    """The tokenizer in the folder of a model. ModelError when there is none or it cannot be run."""
    vocabulary = read_vocabulary(profile.path)
    if vocabulary is None:
        raise ModelError(
            f"{profile.path} has neither {TOKENIZER_JSON} nor {TOKENIZER_MODEL}: save the tokenizer there with "
            f"AutoTokenizer.from_pretrained(…).save_pretrained(…)"
        )
    return FolderTokenizer(
        vocabulary,
        _encoder(vocabulary),
        bos_id=profile.bos_id,
        eos_id=profile.eos_id,
        ends=profile.eog_ids,
        num_rows=read_configs(profile.path).vocabulary_rows() or 0,
    )


def _encoder(vocabulary: FolderVocabulary) -> Encoder:
    if vocabulary.description is not None:
        return JsonEncoder(vocabulary)
    from .sentencepiece import SentencePieceEncoder

    return SentencePieceEncoder(vocabulary)
