"""sentence-transformers behind LitServe, which batches: OpenAI's embeddings in JSON.

    serve_texts_litserve.py MODEL BACKEND FILE PORT THREADS TOGETHER ENCODED

TOGETHER requests at most share a call of encode(), which sorts their texts by length and runs ENCODED at once.
FILE names one of the graphs of the model; - is the only one.
"""

import sys

import litserve
import orjson
from sentence_transformers import SentenceTransformer
from starlette.responses import Response

MODEL, BACKEND, FILE = sys.argv[1:4]
PORT, THREADS, TOGETHER, ENCODED = map(int, sys.argv[4:8])


class Api(litserve.LitAPI):
    """One model."""

    def setup(self, device: str) -> None:
        """Load the model with its threads."""
        options = {} if FILE == "-" else {"file_name": FILE}
        if BACKEND == "torch":
            import torch

            torch.set_num_threads(THREADS)
        elif BACKEND == "onnx":
            import onnxruntime

            session = onnxruntime.SessionOptions()
            session.intra_op_num_threads = THREADS
            options |= {"provider": "CPUExecutionProvider", "session_options": session}
        else:
            options |= {"ov_config": {"INFERENCE_NUM_THREADS": str(THREADS), "INFERENCE_PRECISION_HINT": "f32"}}
        self.model = SentenceTransformer(MODEL, device="cpu", backend=BACKEND, model_kwargs=options)

    def decode_request(self, request: dict) -> str:
        """The text."""
        return request["input"]

    def predict(self, x: object) -> object:
        """The vectors."""
        texts = x if isinstance(x, list) else [x]
        vectors = self.model.encode(texts, batch_size=ENCODED, show_progress_bar=False)
        return list(vectors) if isinstance(x, list) else vectors[0]

    def encode_response(self, output: object) -> Response:
        """JSON, made in the worker by the fastest library there is: jsonable_encoder of FastAPI takes milliseconds."""
        entry = {"object": "embedding", "index": 0, "embedding": output}
        body = orjson.dumps({"object": "list", "data": [entry]}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")


if __name__ == "__main__":
    batching = {"max_batch_size": TOGETHER, "batch_timeout": 0.002} if TOGETHER > 1 else {}
    server = litserve.LitServer(Api(api_path="/v1/embeddings", **batching), accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=PORT, generate_client_file=False, log_level="error", access_log=False)
