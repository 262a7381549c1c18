"""MLServer around the same ONNX file: a runtime of its own, with its codec for numpy."""

import os

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    """One model."""

    async def load(self) -> bool:
        """Open the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["ORTC_BENCH_THREADS"])
        self.session = onnxruntime.InferenceSession(os.environ["ORTC_BENCH_MODEL"], options)
        self.output_names = [entry.name for entry in self.session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Run."""
        found = self.session.run(None, {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs})
        return InferenceResponse(
            model_name=self.name,
            outputs=[
                NumpyCodec.encode_output(name, array) for name, array in zip(self.output_names, found, strict=True)
            ],
        )
