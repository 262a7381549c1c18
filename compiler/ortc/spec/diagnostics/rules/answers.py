"""Rules about what a bundle answers with: the recipe of a repository, and the settings that replace parts of it."""

from ortc.spec.diagnostics.rules.model import Rule

_SOURCE = "model:\n  source: huggingface\n  id: owner/encoder\n  revision: 1110a243fdf4706b3f48f1d95db1a4f5529b4d41\n"
_FILES = (
    "    config.json: 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41\n"
    "    model.safetensors: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\n"
    "    tokenizer.json: be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037\n"
)

RECIPE_UNREPRODUCED = Rule(
    "ORTC340",
    "recipe-unreproduced",
    "A repository's recipe holds a module or a setting that ortc does not reproduce.",
    "`modules.json` lists what sentence-transformers computes around the model. ortc reproduces Transformer, Pooling "
    "in every mode, Dense, LayerNorm and Normalize, with prompts; each with the settings that it knows. Another "
    "module or setting changes the answer, so a bundle without it would answer something else. `interface: tensors` "
    "takes the tensors of the model alone, and the report and the manifest name what is left out. A function that "
    "builds the whole is a `pytorch` source.",
    bad="$ cat models/encoder/2_Dense/config.json\n"
    '{"in_features": 768, "out_features": 256, "activation_function": "encoder.layers.Swish"}\n',
    good="model:\n  source: huggingface\n  path: models/encoder\n  interface: tensors\n",
)
RECIPE_UNLISTED = Rule(
    "ORTC341",
    "recipe-unlisted",
    "`model.files` does not list a file that decides how a text becomes an answer.",
    "A list of files with digests says which bytes are the model. The tokenizer's settings, the pooling and the "
    "prompts decide the answer as the weights do, so a bundle that answers texts is made from listed files only. "
    "`ortc init` lists them all. A bundle of the model's tensors alone needs none of them: `interface: tensors`.",
    bad="$ ls models/encoder\n1_Pooling  config.json  model.safetensors  modules.json  tokenizer.json\n"
    "$ grep -A4 files: specs/encoder.yaml\n"
    "  files:\n    config.json: 953f…\n    model.safetensors: 53aa…\n    modules.json: 84e4…\n"
    "    tokenizer.json: be50…\n",
    good=f"{_SOURCE}  files:\n{_FILES}"
    "    modules.json: 84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf\n"
    "    tokenizer_config.json: acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b\n"
    "    special_tokens_map.json: 303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3\n"
    "    sentence_bert_config.json: fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7\n"
    "    config_sentence_transformers.json: 061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3\n"
    "    1_Pooling/config.json: 4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23\n",
)
TEXT_LENGTH = Rule(
    "ORTC342",
    "text-length",
    "Texts may have more tokens than the model's inputs can hold.",
    "The greatest length of a text is `interface.max_length`, else `max_seq_length` of sentence_bert_config.json, "
    "else `model_max_length` of tokenizer_config.json, else the truncation of tokenizer.json. The axis of the token "
    "ids has a bound of its own. Where that bound is lower, texts in between would be refused, or cut elsewhere than "
    "the model's own tokenizer cuts them.",
    bad=f"{_SOURCE}  files:\n{_FILES}  interface: {{max_length: 512}}\n"
    "export:\n  dynamic_axes:\n    batch: {min: 1, max: 16}\n    sequence: {min: 1, max: 256}\n",
    good=f"{_SOURCE}  files:\n{_FILES}  interface: {{max_length: 256}}\n"
    "export:\n  dynamic_axes:\n    batch: {min: 1, max: 16}\n    sequence: {min: 1, max: 256}\n",
)
INTERFACE_UNUSED = Rule(
    "ORTC343",
    "interface-unused",
    "`interface` has settings for texts, images or sounds, and the bundle answers none.",
    "A bundle answers texts where its repository has tokenizer.json, and images or sounds where it has "
    "preprocessor_config.json, if `model.task` is one of the tasks that ortc makes answers for. Otherwise its settings "
    "would have no effect.",
    bad=f"{_SOURCE}  files:\n{_FILES}  task: video-classification\n  interface: {{max_length: 128}}\n",
    good=f"{_SOURCE}  files:\n{_FILES}  task: video-classification\n",
)
INTERFACE_OF_ANOTHER_TASK = Rule(
    "ORTC344",
    "interface-of-another-task",
    "A setting of `interface` belongs to other tasks than the model's.",
    "Lengths and truncation hold for every task. `pooling` and `normalize` are settings of feature-extraction, and "
    "`prompt` of feature-extraction, text-classification and text-ranking. `labels` is one of text-classification, "
    "token-classification and zero-shot-classification. `aggregation` belongs to token-classification, `stride` to "
    "question-answering, `top_k` to fill-mask, `hypothesis` and `multi_label` to zero-shot-classification. With other "
    "tasks the setting would have no effect.",
    bad=f"{_SOURCE}  files:\n{_FILES}  task: fill-mask\n  interface: {{aggregation: simple}}\n",
    good=f"{_SOURCE}  files:\n{_FILES}  task: token-classification\n  interface: {{aggregation: simple}}\n",
)
INTERFACE_DIMENSIONS = Rule(
    "ORTC345",
    "interface-dimensions",
    "`interface.dimensions` names a size above that of the model's vectors.",
    "A vector of a model that was trained for it may be cut to its first numbers. The size of the whole vector is "
    "`hidden_size` of config.json, times the modes of a pooling that joins several, or what the last Dense layer of "
    "modules.json gives.",
    bad="$ grep hidden_size models/encoder/config.json\n"
    '  "hidden_size": 384,\n'
    "$ grep dimensions specs/encoder.yaml\n  interface: {dimensions: [128, 1024]}\n",
    good="model:\n  source: huggingface\n  path: models/encoder\n  interface: {dimensions: [128, 256]}\n",
)

RULES = (
    RECIPE_UNREPRODUCED,
    RECIPE_UNLISTED,
    TEXT_LENGTH,
    INTERFACE_UNUSED,
    INTERFACE_OF_ANOTHER_TASK,
    INTERFACE_DIMENSIONS,
)
