"""ORTC2xx: parts of a spec, each right by itself, that do not fit together or do not fit the target."""

from ortc.spec.diagnostics.rules.model import Rule

UNKNOWN_TARGET = Rule(
    "ORTC201",
    "unknown-target",
    "A target names a profile that does not exist.",
    "The key of a target is the name of its profile, unless `profile:` gives another. `ortc targets` lists the "
    "profiles: those that come with ortc, and those in targets/ of your own project.",
    bad="targets:\n  server-gpus: {}\n",
    good="targets:\n  server-gpu: {}\n",
)
PROFILE_NAME = Rule(
    "ORTC202",
    "profile-name",
    "A target profile calls itself otherwise than its file.",
    "Profiles are found by the names of their files; reports and bundles show the name inside.",
    bad="$ head -3 targets/edge.yaml\napiVersion: ortc/v1alpha1\nkind: TargetProfile\nname: cpu",
    good="$ head -3 targets/edge.yaml\napiVersion: ortc/v1alpha1\nkind: TargetProfile\nname: edge",
)
OPSET = Rule(
    "ORTC204",
    "opset-unsupported",
    "The opset is beyond what the runtime of a target loads, or what the exporter writes.",
    "Each ONNX Runtime release loads opsets up to a fixed one, and each exporter writes up to a fixed one. The table "
    "in targets/data/runtimes.json holds both, probed from the real packages. A newer opset is not better by itself: "
    "take the exporter's default unless an operator needs more.",
    bad="export:\n  opset: 27\n",
    good="export:\n  opset: 20\n",
)
PRECISION = Rule(
    "ORTC205",
    "precision-not-offered",
    "A precision that no variant of the target's profile computes in.",
    "A profile lists the variants that make sense on its hardware: x86 CPUs have no fp16 kernels, so fp16 there would "
    "be slower than fp32 and no smaller in memory. `auto` takes the fastest variant that keeps the accuracy.",
    bad="targets:\n  cpu: {precision: fp16}\n",
    good="targets:\n  cpu: {precision: int8}\n",
)
RUNTIME = Rule(
    "ORTC206",
    "unknown-runtime",
    "A profile pins a runtime that ortc has no data for.",
    "Every limit, option and pinned requirement comes from a table probed from the real package. A version that is not "
    "in it cannot be checked, so it is refused; targets/generate_runtimes.py and generate_pins.py add one.",
    bad='$ grep -A2 runtime: targets/mine.yaml\nruntime:\n  package: onnxruntime\n  version: "1.13.1"',
    good='$ grep -A2 runtime: targets/mine.yaml\nruntime:\n  package: onnxruntime\n  version: "1.31.1"',
)
NO_WHEELS = Rule(
    "ORTC207",
    "no-wheels",
    "A profile's runtime has no wheels for one of its platforms, or for the Python of its image.",
    "The image is built by installing pinned wheels. Where there is none, the build of the image would fail, long "
    "after the bundle was made.",
    bad="$ grep -e platforms -e package targets/mine.yaml\nplatforms: [linux/arm64]\n  package: onnxruntime-gpu",
    good="$ grep -e platforms -e package targets/mine.yaml\nplatforms: [linux/amd64]\n  package: onnxruntime-gpu",
)
PROVIDER = Rule(
    "ORTC208",
    "unknown-provider",
    "A profile names an execution provider that its runtime does not have.",
    "ONNX Runtime answers an unknown provider with a warning and runs on the CPU. Names are compared with those in the "
    "wheel.",
    bad="$ grep -A1 execution_providers targets/mine.yaml\nexecution_providers:\n  - name: CudaExecutionProvider",
    good="$ grep -A1 execution_providers targets/mine.yaml\nexecution_providers:\n  - name: CUDAExecutionProvider",
)
PROVIDER_OPTION = Rule(
    "ORTC209",
    "unknown-provider-option",
    "A profile sets an option that its execution provider does not have, or that no bundle may carry.",
    "Some providers ignore options that they do not know. Names are compared with those in the wheel, and with the "
    "list of the loader, which refuses options that name plug-ins, files or addresses.",
    bad="$ grep options targets/mine.yaml\n    options: {gpu_memory_limit: 2GB}",
    good='$ grep options targets/mine.yaml\n    options: {gpu_mem_limit: "2147483648"}',
)
SESSION_OPTION = Rule(
    "ORTC210",
    "unknown-session-option",
    "A profile sets an option, key or variable that its runtime lacks or no bundle may carry, or to a wrong type.",
    "ONNX Runtime accepts any configuration key and ignores those that it does not know. Names are compared with those "
    "in the wheel, and with the list of the loader, which refuses whatever reads or writes files, loads libraries or "
    "changes the log. Threads and the graph level have keys of their own in the profile.",
    bad='$ grep config_entries targets/mine.yaml\n  config_entries: {memory.pattern_optimization.enabled: "1"}',
    good="$ grep options targets/mine.yaml\n  options: {enable_mem_pattern: true}",
)
PLATFORM = Rule(
    "ORTC211",
    "platform-not-offered",
    "A target names a platform that its profile does not serve.",
    "A profile lists the platforms that its runtime and image exist for.",
    bad="targets:\n  server-gpu: {platforms: [linux/arm64]}\n",
    good="targets:\n  server-gpu: {platforms: [linux/amd64]}\n",
)
UNKNOWN_AXIS = Rule(
    "ORTC220",
    "unknown-axis",
    "A shape names an axis that is not declared.",
    "Every dynamic axis is declared once in `export.dynamic_axes`, with its bounds. A name that is used and not "
    "declared is a typing mistake, or an axis without bounds.",
    bad="export:\n  dynamic_axes:\n    batch: {max: 16}\n  inputs:\n    x: {dtype: float32, shape: [batch, seq]}\n",
    good="export:\n  dynamic_axes:\n    batch: {max: 16}\n    seq: {max: 512}\n  inputs:\n"
    "    x: {dtype: float32, shape: [batch, seq]}\n",
)
BASE_IMAGE = Rule(
    "ORTC212",
    "base-image-by-tag",
    "A profile of the project names its base image by a tag alone.",
    "Whoever owns a tag can move it to another image, so that the same bundle gives another container. A digest names "
    "one image for ever; the Dockerfile and the provenance then name it.",
    bad="$ grep base_image targets/mine.yaml\n  base_image: python:3.12-slim",
    good=f"$ grep base_image targets/mine.yaml\n  base_image: python:3.12-slim@sha256:{'0123456789abcdef' * 4}",
    severity="warning",
)
UNUSED_AXIS = Rule(
    "ORTC221",
    "unused-axis",
    "A declared axis is in no input's shape.",
    "Its bounds promise nothing, because no input has it. Inputs that are derived from a Hugging Face model use the "
    "axes batch, sequence, samples and frames (audio), height and width, choices, decoder_sequence, and images (beside "
    "texts).",
    bad="export:\n  dynamic_axes:\n    batch: {max: 16}\n    sequence: {max: 512}\n  inputs:\n"
    "    x: {dtype: float32, shape: [batch, 8]}\n",
    good="export:\n  dynamic_axes:\n    batch: {max: 16}\n  inputs:\n    x: {dtype: float32, shape: [batch, 8]}\n",
    severity="warning",
)
AXIS_BOUNDS = Rule(
    "ORTC222",
    "axis-bounds",
    "The bounds of an axis are not in order.",
    "`min` <= `typical` <= `max`; `min` is 1 and `typical` is `min` when they are not given.",
    bad="export:\n  dynamic_axes:\n    batch: {typical: 32, max: 16}\n",
    good="export:\n  dynamic_axes:\n    batch: {typical: 8, max: 16}\n",
)
AXIS_MULTIPLE = Rule(
    "ORTC223",
    "axis-multiple",
    "A bound of an axis is not a multiple of its `multiple_of`.",
    "`min`, `typical` and `max` are sizes that the model is checked at, and the model takes multiples only.",
    bad="export:\n  dynamic_axes:\n    height: {min: 16, max: 100, multiple_of: 16}\n",
    good="export:\n  dynamic_axes:\n    height: {min: 16, max: 96, multiple_of: 16}\n",
)
BUDGET_SHAPE = Rule(
    "ORTC224",
    "budget-shape",
    "A latency budget is given at a size outside the bounds of the axis.",
    "The bundle refuses inputs outside the bounds, so nothing can be measured there.",
    bad="export:\n  dynamic_axes:\n    batch: {max: 16}\ntargets:\n"
    "  cpu: {latency_budget: {p99: 9ms, at: {batch: 32}}}\n",
    good="export:\n  dynamic_axes:\n    batch: {max: 32}\ntargets:\n"
    "  cpu: {latency_budget: {p99: 9ms, at: {batch: 32}}}\n",
)
PERCENTILES = Rule(
    "ORTC225",
    "percentiles-order",
    "A lower percentile has a larger budget than a higher one.",
    "The 99th percentile is never below the median. The looser of the two bounds could never be what fails.",
    bad="targets:\n  cpu: {latency_budget: {p50: 20ms, p99: 10ms}}\n",
    good="targets:\n  cpu: {latency_budget: {p50: 10ms, p99: 20ms}}\n",
)
INPUT_RANGE = Rule(
    "ORTC226",
    "input-range",
    "The range of an input is empty, or its dtype cannot hold it.",
    "Synthetic inputs are drawn from the range, ends included.",
    bad="export:\n  inputs:\n    x: {dtype: uint8, shape: [8], range: [0, 256]}\n",
    good="export:\n  inputs:\n    x: {dtype: uint8, shape: [8], range: [0, 255]}\n",
)
INPUT_FILL = Rule(
    "ORTC227",
    "input-fill",
    "The fill value of an input is outside its range, or its dtype cannot hold it.",
    "`fill` makes a synthetic input constant; it is a value of the input like any other.",
    bad="export:\n  inputs:\n    mask: {dtype: int64, shape: [8], range: [0, 1], fill: 2}\n",
    good="export:\n  inputs:\n    mask: {dtype: int64, shape: [8], range: [0, 1], fill: 1}\n",
)
INPUTS_REQUIRED = Rule(
    "ORTC228",
    "inputs-required",
    "A `pytorch` source without `export.inputs`.",
    "A Python function does not say what tensors its module takes, so the spec must. For the other sources, inputs are "
    "derived.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n  opset: 20\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n"
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
)
REPEATED_OUTPUT = Rule(
    "ORTC229",
    "repeated-output",
    "An output is listed twice.",
    "`outputs` are the outputs to keep, in order; each has one place.",
    bad="export:\n  outputs: [logits, logits]\n",
    good="export:\n  outputs: [logits]\n",
)
SIZE_IMPOSSIBLE = Rule(
    "ORTC230",
    "size-budget-impossible",
    "The size budget is below what the weights alone need.",
    "The weights are known from the header of a safetensors file or the index of several, from an ONNX graph, a .pt2 "
    "archive or a configuration, and the smallest variant that the target may use gives the least number of bytes: 4 a "
    "weight in fp32, 2 in fp16 and bf16, 1 in int8 for the operator types that the variant quantizes. Of a graph and "
    "an archive, weights count that no optimizer can do without: those that matrix products, convolutions and "
    "embeddings on the way to a kept output apply. Of other files only a quarter is counted here, because a task or "
    "the model's code may leave out heads and towers.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n  args: {width: 32}\n'
    "  weights: examples/digits/weights.safetensors\n"
    "export:\n  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\ntargets:\n  cpu: {size_budget: 4kB}\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n  args: {width: 32}\n'
    "  weights: examples/digits/weights.safetensors\n"
    "export:\n  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\ntargets:\n  cpu: {size_budget: 400kB}\n",
)
SIZE_UNLIKELY = Rule(
    "ORTC231",
    "size-budget-unlikely",
    "The size budget is below what all weights of the model need.",
    "It can hold only if the task leaves out a large part of the model. See size-budget-impossible (ORTC230).",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\ntargets:\n"
    "  cpu: {precision: fp32, size_budget: 200MB}\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\ntargets:\n"
    "  cpu: {precision: fp32, size_budget: 500MB}\n",
    severity="warning",
)
PLACEMENT = Rule(
    "ORTC232",
    "placement-without-accelerator",
    "A budget of CPU nodes or of copies on a target whose only execution provider is the CPU.",
    "`max_cpu_nodes` guards against silent fallback from an accelerator, `max_memcpy_nodes` against the copies between "
    "host and device that come with it. On a CPU target every node is a CPU node, and nothing is copied.",
    bad="targets:\n  cpu: {max_cpu_nodes: 0}\n",
    good="targets:\n  server-gpu: {max_cpu_nodes: 0}\n",
)
DOWNLOAD_IMPOSSIBLE = Rule(
    "ORTC233",
    "download-budget-impossible",
    "The download budget is below what the runtime and the weights need.",
    "`download_budget` counts the model's files and the wheels that the loader needs: ONNX Runtime's, and what that "
    "requires, NumPy above all. Their sizes are pinned with the versions, and are known for every promised platform. "
    "What the server needs is not counted. The weights are counted as for size-budget-impossible (ORTC230).",
    bad="targets:\n  edge: {platforms: [linux/arm64], download_budget: 30MB}\n",
    good="targets:\n  edge: {platforms: [linux/arm64], download_budget: 65MB}\n",
)

MUST_SAVE = Rule(
    "ORTC234",
    "must-save-without-balanced",
    "`must_save` is given to a target whose objective is not `balanced`.",
    "`must_save` is the share of the latency budget that a variant must save to cost another runtime or a lower "
    "precision. Only `objective: balanced` weighs the two. Under `latency` the fastest variant ships, and under `size` "
    "the smallest.",
    bad="targets:\n  cpu: {objective: latency, must_save: 10%}\n",
    good="targets:\n  cpu: {objective: balanced, must_save: 10%}\n",
)
PADDING_MASK = Rule(
    "ORTC235",
    "padding-mask",
    "`export.mask` names no input [batch, positions] of `export.inputs`.",
    "A padding mask says of every position of a row whether the model reads it. The shape matrix has cases with "
    "shorter rows for it, and outputs at padding are not compared where the reference shows that nobody reads them. "
    "An input that is called `attention_mask` needs no declaration. `padded: true` is the meaning of PyTorch's "
    "`key_padding_mask`: 1 or true at padding.",
    bad="export:\n  dynamic_axes: {batch: {max: 4}, sequence: {max: 32}}\n  inputs:\n"
    "    x: {dtype: float32, shape: [batch, sequence, 8]}\n    pad: {dtype: bool, shape: [batch, sequence]}\n"
    "  mask: {input: padding, padded: true}\n",
    good="export:\n  dynamic_axes: {batch: {max: 4}, sequence: {max: 32}}\n  inputs:\n"
    "    x: {dtype: float32, shape: [batch, sequence, 8]}\n    pad: {dtype: bool, shape: [batch, sequence]}\n"
    "  mask: {input: pad, padded: true}\n",
)
STRING_INPUT = Rule(
    "ORTC236",
    "string-input",
    "A string input that no samples can be made of, or `examples` of an input of numbers.",
    "A model answers random text as it answers all that it does not know, which proves nothing. So synthetic samples "
    "of a string input are drawn from `examples`, unless `accuracy.samples` has real ones; `ortc init` writes strings "
    "that the graph knows. `examples` bound nothing: other strings are answered, too. Only ONNX files have string "
    "inputs.",
    bad="model:\n  source: onnx\n  path: tests/diagnostics/onnx/words.onnx\nexport:\n"
    "  dynamic_axes: {batch: {max: 4}}\n  inputs:\n    word: {dtype: string, shape: [batch]}\n"
    "targets:\n  cpu: {precision: fp32}\n",
    good="model:\n  source: onnx\n  path: tests/diagnostics/onnx/words.onnx\nexport:\n"
    "  dynamic_axes: {batch: {max: 4}}\n  inputs:\n    word: {dtype: string, shape: [batch], examples: [red, green]}\n"
    "targets:\n  cpu: {precision: fp32}\n",
)
AXIS_RELATION = Rule(
    "ORTC237",
    "axis-relation",
    "`equals` of an axis names no axes that it can follow from, or its bounds are not their sums.",
    "Files name sizes that belong together as sums: an attention mask over `past + sequence` positions. The shape "
    "matrix goes through the sizes of the other axes, and the loader refuses requests whose sizes do not add up. "
    "`ortc init` writes the sums that a file names. Only ONNX files need them.",
    bad="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n  dynamic_axes:\n"
    "    batch: {min: 1, max: 4}\n    twice: {min: 1, max: 4, equals: 2 * batch}\n",
    good="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n  dynamic_axes:\n"
    "    batch: {min: 1, max: 4}\n    twice: {min: 2, max: 8, equals: 2 * batch}\n",
)

RULES = (
    UNKNOWN_TARGET,
    PROFILE_NAME,
    OPSET,
    PRECISION,
    RUNTIME,
    NO_WHEELS,
    PROVIDER,
    PROVIDER_OPTION,
    SESSION_OPTION,
    PLATFORM,
    BASE_IMAGE,
    UNKNOWN_AXIS,
    UNUSED_AXIS,
    AXIS_BOUNDS,
    AXIS_MULTIPLE,
    BUDGET_SHAPE,
    PERCENTILES,
    INPUT_RANGE,
    INPUT_FILL,
    INPUTS_REQUIRED,
    REPEATED_OUTPUT,
    SIZE_IMPOSSIBLE,
    SIZE_UNLIKELY,
    PLACEMENT,
    DOWNLOAD_IMPOSSIBLE,
    MUST_SAVE,
    PADDING_MASK,
    STRING_INPUT,
    AXIS_RELATION,
)
