"""Whether an output layer is the embedding that it is said to be."""

import numpy as np

from ...runtime.errors import ConversionError


def check_tied(output: np.ndarray, embedding: np.ndarray) -> None:
    """ConversionError when they differ. Compared a few rows at a time, so that neither is in memory as a whole."""
    step = max(1, (1 << 22) // max(1, output.shape[-1]))
    for start in range(0, len(output), step):
        if not np.array_equal(output[start : start + step], embedding[start : start + step]):
            raise ConversionError(
                "config.json has tie_word_embeddings = True, and lm_head.weight is not embed_tokens.weight: set it to "
                "false, or remove lm_head.weight"
            )
