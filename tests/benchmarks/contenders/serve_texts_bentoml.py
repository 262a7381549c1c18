"""sentence-transformers in BentoML, which batches: `bentoml serve serve_texts_bentoml:Embeddings`.

Of the environment: ORTC_BENCH_MODEL, ORTC_BENCH_THREADS, and ORTC_BENCH_SETTING, TOGETHER/ENCODED as of LitServe.
"""

import os

import bentoml
import numpy as np

TOGETHER, ENCODED = map(int, os.environ["ORTC_BENCH_SETTING"].split("/"))


@bentoml.service(workers=1, traffic={"timeout": 300})
class Embeddings:
    """One model."""

    def __init__(self) -> None:
        """Load the model with its threads."""
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(int(os.environ["ORTC_BENCH_THREADS"]))
        self.model = SentenceTransformer(os.environ["ORTC_BENCH_MODEL"], device="cpu")

    @bentoml.api(batchable=True, max_batch_size=TOGETHER, max_latency_ms=60000, route="/v1/embeddings")
    def embed(self, texts: list[str]) -> np.ndarray:
        """The vectors."""
        return self.model.encode(texts, batch_size=ENCODED, show_progress_bar=False)
