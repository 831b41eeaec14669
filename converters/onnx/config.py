"""config.json for an ONNX graph: the rules are those of every converter, only the words are this one's."""

from ...runtime.errors import ConversionError
from ..gguf.architectures.config import Config

_GGUF_WORDS = "GGUF has no key for it in"
_OWN_WORDS = "the graph that tapster writes does not have it for"


class GraphConfig(Config):
    """The keys of one config.json, each of which has to be understood."""

    def refuse_unknown(self) -> None:
        """ConversionError for the first key that nobody took and that is not known to be harmless."""
        try:
            super().refuse_unknown()
        except ConversionError as error:
            raise ConversionError(str(error).replace(_GGUF_WORDS, _OWN_WORDS)) from None
