"""Tiny seeded configurations of many architectures: each is a spec, tried as any user's would be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

TEXT_AXES: Json = {
    "batch": {"min": 1, "typical": 1, "max": 3},
    "sequence": {"min": 1, "typical": 16, "max": 40},
}
BATCH: Json = {"batch": {"min": 1, "typical": 1, "max": 3}}
AUDIO_AXES: Json = {**BATCH, "samples": {"min": 800, "typical": 1600, "max": 4000}}

ENCODER: Json = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 120,
    "max_position_embeddings": 64,
}
DECODER: Json = {
    **ENCODER,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION: Json = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 3,
    "num_labels": 5,
}
SPEECH: Json = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "conv_dim": [16, 16],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 2,
    "vocab_size": 32,
    "num_labels": 4,
    "classifier_proj_size": 16,
}
"""Wave in, vectors out, like wav2vec 2.0."""


@dataclass(frozen=True)
class Architecture:
    """One architecture to try: a configuration of transformers, a task, and the axes that are promised."""

    name: str
    kind: str
    config: Json
    task: str = "feature-extraction"
    axes: Json = field(default_factory=lambda: TEXT_AXES)
    inputs: Json | None = None
    outputs: tuple[str, ...] | None = None
    why: str = ""
    """Why the spec says more than the configuration does."""

    def spec(self, opset: int) -> Json:
        """The spec, of a model directory `model`."""
        export: Json = {"opset": opset, "dynamic_axes": self.axes}
        if self.inputs is not None:
            export["inputs"] = self.inputs
        if self.outputs is not None:
            export["outputs"] = list(self.outputs)
        return {
            "apiVersion": "ortc/v1alpha1",
            "kind": "ModelDeployment",
            "name": self.name,
            "version": "1.0.0",
            "model": {"source": "huggingface", "path": "model", "task": self.task, "weights": "random"},
            "export": export,
            "targets": {"cpu": {"precision": "auto", "latency_budget": {"p99": "60s"}}},
        }


def text(name: str, task: str = "feature-extraction", *, axes: Json | None = None, **config: Any) -> Architecture:
    """An encoder of text."""
    model_type = config.pop("model_type", name)
    return Architecture(
        name, "text", {"model_type": model_type, **ENCODER, **config}, task, TEXT_AXES if axes is None else axes
    )


def decoder(name: str, task: str = "causal-lm", **config: Any) -> Architecture:
    """A decoder of text, as one forward pass."""
    model_type = config.pop("model_type", name)
    return Architecture(name, "decoder", {"model_type": model_type, **DECODER, **config}, task)


def vision(name: str, task: str = "image-classification", *, axes: Json | None = None, **config: Any) -> Architecture:
    """A model of images."""
    model_type = config.pop("model_type", name)
    base = {} if config.pop("bare", False) else VISION
    return Architecture(name, "vision", {"model_type": model_type, **base, **config}, task, axes or BATCH)


def speech(name: str, task: str = "ctc", **config: Any) -> Architecture:
    """A model of sound."""
    model_type = config.pop("model_type", name)
    return Architecture(name, "audio", {"model_type": model_type, **SPEECH, **config}, task, AUDIO_AXES)


def staged(name: str, task: str = "image-classification", *, axes: Json | None = None, **config: Any) -> Architecture:
    """A model of images whose stages have sizes of their own."""
    return vision(name, task, axes=axes, bare=True, **{"num_labels": 5, **config})


TWO_STAGES: Json = {"depths": [1, 1], "hidden_sizes": [8, 16]}
WINDOWED: Json = {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 4}
BLOCKS: Json = {
    "image_size": 64,
    "num_encoder_blocks": 2,
    "depths": [1, 1],
    "hidden_sizes": [16, 32],
    "patch_sizes": [7, 3],
    "strides": [4, 2],
}
PYRAMID: Json = {
    **BLOCKS,
    "num_channels": 3,
    "num_labels": 5,
    "sr_ratios": [2, 1],
    "num_attention_heads": [1, 2],
    "mlp_ratios": [2, 2],
    "decoder_hidden_size": 16,
}
SEQUENCE_TO_SEQUENCE: Json = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
FREE_SIZES: Json = {
    **BATCH,
    "height": {"min": 32, "typical": 64, "max": 96, "multiple_of": 32},
    "width": {"min": 32, "typical": 64, "max": 128, "multiple_of": 32},
}

LAYOUT: Json = {"input_size": 32, "patch_size": 16, "coordinate_size": 4, "shape_size": 8}
DETECTOR: Json = {
    **SEQUENCE_TO_SEQUENCE,
    "num_queries": 5,
    "num_labels": 4,
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "backbone_config": {"model_type": "resnet", "embedding_size": 8, **TWO_STAGES, "layer_type": "basic"},
}

ARCHITECTURES: tuple[Architecture, ...] = (
    text("bert"),
    text("bert-ner", "token-classification", model_type="bert", num_labels=5),
    text("roberta", "text-classification", num_labels=3, pad_token_id=1),
    text("xlm-roberta", pad_token_id=1),
    text("camembert", "fill-mask", pad_token_id=1),
    text("distilbert", "text-classification", dim=32, n_layers=1, n_heads=4, hidden_dim=64),
    text("albert", "fill-mask", embedding_size=16),
    text("electra", "question-answering", embedding_size=16),
    text("mpnet"),
    text("deberta", pos_att_type=["c2p", "p2c"], relative_attention=True, max_relative_positions=-1),
    text(
        "deberta-v2",
        "text-classification",
        pos_att_type=["c2p", "p2c"],
        relative_attention=True,
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_buckets=16,
    ),
    text(
        "modernbert",
        "fill-mask",
        num_hidden_layers=2,
        global_attn_every_n_layers=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    ),
    text("mobilebert", embedding_size=32, true_hidden_size=32, intra_bottleneck_size=32, num_feedforward_networks=1),
    text("squeezebert", embedding_size=32, q_groups=1, k_groups=1, v_groups=1),
    text("convbert", "question-answering", embedding_size=32, head_ratio=2, conv_kernel_size=3),
    text("roformer", embedding_size=32),
    # Its approximation of attention is made for one length.
    text(
        "nystromformer",
        axes={**BATCH, "sequence": {"min": 16, "typical": 16, "max": 16}},
        segment_means_seq_len=16,
        num_landmarks=8,
        conv_kernel_size=9,
    ),
    text("fnet", "fill-mask", tpu_short_seq_length=32),
    text("rembert", input_embedding_size=16, output_embedding_size=16),
    text("ernie", "multiple-choice"),
    text("megatron-bert"),
    text("esm", "fill-mask", pad_token_id=1, mask_token_id=5, position_embedding_type="rotary"),
    text("layoutlm", "token-classification", num_labels=4),
    text("lilt", "token-classification", num_labels=4, channel_shrink_ratio=4, hidden_size=48),
    text("layoutlmv3", "token-classification", num_labels=4, **LAYOUT),
    text("markuplm", "token-classification", num_labels=4, max_depth=5, xpath_unit_hidden_size=8),
    text("tapas"),
    Architecture(
        "xlnet",
        "text",
        {"model_type": "xlnet", "vocab_size": 120, "d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 64},
    ),
    text("t5-encoder", "text-encoding", model_type="t5", d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4),
    text("bart", **SEQUENCE_TO_SEQUENCE, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2),
    decoder("gpt2", n_embd=32, n_layer=1, n_head=4, n_positions=64),
    decoder("gpt_neox", rotary_pct=0.5),
    decoder("opt", ffn_dim=64, word_embed_proj_dim=32),
    decoder("llama"),
    decoder("mistral", "text-classification", num_labels=3),
    decoder("qwen2"),
    decoder("qwen3", "feature-extraction"),
    decoder("gemma"),
    decoder("phi", partial_rotary_factor=0.5),
    vision("vit"),
    vision("deit"),
    vision("beit"),
    vision("dinov2", "image-feature-extraction"),
    staged("swin", **WINDOWED, window_size=2),
    staged("swinv2", **WINDOWED, window_size=4),
    staged("convnext", **TWO_STAGES, image_size=32, num_channels=3, num_stages=2),
    staged("resnet", axes=FREE_SIZES, **TWO_STAGES, num_channels=3, embedding_size=8, layer_type="basic"),
    staged("mobilenet_v2", image_size=64, depth_multiplier=0.35),
    staged("efficientnet", image_size=64, width_coefficient=0.1, depth_coefficient=0.1, hidden_dim=128),
    staged("regnet", **TWO_STAGES, num_channels=3, embedding_size=8, groups_width=4),
    vision("segformer", "semantic-segmentation", bare=True, **PYRAMID),
    staged(
        "mobilevit",
        initializer_range=0.2,
        image_size=64,
        hidden_sizes=[16, 24, 32],
        neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32],
        num_attention_heads=2,
    ),
    staged("poolformer", **BLOCKS, padding=[2, 1]),
    staged(
        "levit",
        initializer_range=0.2,
        image_size=64,
        num_attention_heads=[2, 2, 2],
        hidden_sizes=[16, 24, 32],
        key_dim=[8, 8, 8],
        depths=[1, 1, 1],
    ),
    vision("yolos", "object-detection", num_detection_tokens=5, use_mid_position_embeddings=False, image_size=[32, 48]),
    staged("detr", "object-detection", axes=FREE_SIZES, **DETECTOR),
    vision(
        "dpt",
        "depth-estimation",
        initializer_range=0.06,
        is_hybrid=False,
        num_hidden_layers=4,
        backbone_out_indices=[0, 1, 2, 3],
        fusion_hidden_size=16,
        neck_hidden_sizes=[8, 8, 16, 16],
        reassemble_factors=[4, 2, 1, 0.5],
    ),
    vision("siglip-vision", "image-feature-extraction", model_type="siglip_vision_model"),
    vision("clip-vision", "image-feature-extraction", model_type="clip_vision_model"),
    Architecture(
        "clip",
        "text and image",
        {
            "model_type": "clip",
            "projection_dim": 16,
            "text_config": {**ENCODER, "eos_token_id": 119, "bos_token_id": 118, "pad_token_id": 1},
            "vision_config": {k: v for k, v in VISION.items() if k != "num_labels"},
        },
    ),
    speech("wav2vec2"),
    speech("wav2vec2-layer", model_type="wav2vec2", feat_extract_norm="layer", do_stable_layer_norm=True),
    speech("hubert", "audio-classification"),
    speech("wavlm", "audio-classification"),
    speech("unispeech-sat", num_codevectors_per_group=20),
    speech("data2vec-audio"),
    Architecture(
        "ast",
        "audio",
        {"model_type": "audio-spectrogram-transformer", **VISION, "max_length": 32, "num_mel_bins": 16},
        "audio-classification",
        BATCH,
    ),
    Architecture(
        "whisper-encoder",
        "audio",
        {
            "model_type": "whisper",
            **SEQUENCE_TO_SEQUENCE,
            "num_mel_bins": 16,
            "max_source_positions": 32,
            "max_target_positions": 32,
            "vocab_size": 120,
            "num_labels": 4,
            "classifier_proj_size": 16,
        },
        "audio-classification",
        BATCH,
    ),
)
