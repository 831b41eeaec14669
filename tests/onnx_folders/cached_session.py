"""Run an ONNX folder on onnxruntime with a cache, as an engine does: the plain way, and in one buffer in place."""

from pathlib import Path

import numpy as np


class CachedSession:
    """A model and the caches of a batch; ``capacity`` makes one buffer of that many tokens that is used in place."""

    def __init__(self, folder: Path, *, batch: int = 1, capacity: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._capacity = capacity
        self._caches = {
            item.name: np.zeros((batch, item.shape[1], capacity, item.shape[3]), np.float32)
            for item in self._session.get_inputs()
            if item.name.startswith("past_key_values")
        }

    def run(self, ids: np.ndarray, lengths: list[int], **more: np.ndarray) -> np.ndarray:
        """Logits (batch, tokens, vocabulary); ``lengths`` is how many tokens each sequence has after these."""
        total = max(lengths)
        mask = (np.arange(total) < np.array(lengths)[:, None]).astype(np.int64)
        feeds = {"input_ids": ids, "attention_mask": mask, **more}
        if self._capacity:
            return self._run_in_place(feeds)
        arrays = (np.asarray(value) for value in self._session.run(None, {**feeds, **self._caches}))
        results = dict(zip(self._outputs, arrays, strict=True))
        self._caches = {name: results[name.replace("past_key_values", "present")] for name in self._caches}
        return results["logits"]

    def _run_in_place(self, feeds: dict[str, np.ndarray]) -> np.ndarray:
        binding = self._session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, array)
        for name, array in self._caches.items():
            address, shape = array.ctypes.data, array.shape
            binding.bind_input(name, "cpu", 0, np.float32, shape, address)
            binding.bind_output(name.replace("past_key_values", "present"), "cpu", 0, np.float32, shape, address)
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()[-1].numpy()
