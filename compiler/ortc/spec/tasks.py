"""Tasks of Hugging Face models: those that a spec can name, and those that need a loop around a model."""

from collections.abc import Mapping

TASKS = {
    "feature-extraction": "AutoModel",
    "text-encoding": "AutoModelForTextEncoding",
    "causal-lm": "AutoModelForCausalLM",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "text-ranking": "AutoModelForSequenceClassification",
    "zero-shot-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "image-classification": "AutoModelForImageClassification",
    "object-detection": "AutoModelForObjectDetection",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "image-feature-extraction": "AutoModel",
    "image-segmentation": "AutoModelForUniversalSegmentation",
    "depth-estimation": "AutoModelForDepthEstimation",
    "video-classification": "AutoModelForVideoClassification",
    "zero-shot-image-classification": "AutoModelForZeroShotImageClassification",
    "audio-classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
}
"""Task of a spec to the Auto class of transformers that loads its head."""

GENERATION = frozenset(
    {
        "automatic-speech-recognition",
        "image-text-to-text",
        "image-to-text",
        "speech-seq2seq",
        "summarization",
        "text-generation",
        "text2text-generation",
        "translation",
    }
)
"""Tasks, as transformers calls them, that are a loop around a model and not one forward pass."""

TEXT_TASKS = (
    "feature-extraction",
    "text-classification",
    "text-ranking",
    "token-classification",
    "question-answering",
    "fill-mask",
    "zero-shot-classification",
)
"""Tasks of a text model whose answers a bundle gives, where its repository has a tokenizer."""

IMAGE_TASKS = (
    "image-classification",
    "image-feature-extraction",
    "object-detection",
    "semantic-segmentation",
    "depth-estimation",
)
"""Tasks of a model of images whose answers a bundle gives, where its repository has an image processor."""

AUDIO_TASKS = ("audio-classification", "ctc")
"""Tasks of a model of sounds whose answers a bundle gives, where its repository has a feature extractor."""

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("feature-extraction", "text-classification", "text-ranking"),
    "pooling": ("feature-extraction",),
    "normalize": ("feature-extraction",),
    "dimensions": ("feature-extraction",),
    "labels": (
        "text-classification",
        "token-classification",
        "zero-shot-classification",
        "image-classification",
        "object-detection",
        "semantic-segmentation",
        "audio-classification",
    ),
    "aggregation": ("token-classification",),
    "stride": ("question-answering",),
    "top_k": ("fill-mask",),
    "hypothesis": ("zero-shot-classification",),
    "multi_label": ("zero-shot-classification",),
}
"""Settings of `interface` that some tasks alone have, with those tasks."""
