"""ORTC3xx: what a spec names outside itself: files, code, repositories, secrets."""

from ortc.spec.diagnostics.rules.model import Rule

FILE_MISSING = Rule(
    "ORTC301",
    "file-missing",
    "A file or directory that the spec names does not exist.",
    "Relative paths start from the root of the project: the nearest directory above the spec that holds `.git` or "
    "`pyproject.toml`, else the spec's own directory.",
    bad="model:\n  source: onnx\n  path: models/missing.onnx\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n",
)
SAMPLES_MISSING = Rule(
    "ORTC302",
    "samples-missing",
    "The samples do not exist.",
    "Without samples, accuracy is proven on synthetic inputs only; a spec that names samples means real ones. Relative "
    "paths start from the root of the project.",
    bad="accuracy:\n  samples: examples/bert/sentence.txt\n",
    good="accuracy:\n  samples: examples/bert/sentences.txt\n",
)
SAMPLES_FORMAT = Rule(
    "ORTC303",
    "samples-format",
    "The samples cannot be turned into inputs of the model.",
    "Samples are an .npz file with an array an input; text (.txt) with one sample a line; a directory of images (.png, "
    ".jpg, .jpeg, .bmp, .webp, also in directories below it); or `entrypoint: module:function`, which gives a mapping "
    "from input to array for each sample. Text needs a tokenizer: a Hugging Face source, with tokenizer.json among its "
    "`files` when files are listed. Images are prepared by the model's own processor (preprocessor_config.json in its "
    "files), else scaled to the size and range that the input declares.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n  inputs:\n"
    "    image: {dtype: float32, shape: [1, 1, 8, 8]}\naccuracy:\n  samples: examples/bert/sentences.txt\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n  inputs:\n"
    "    image: {dtype: float32, shape: [1, 1, 8, 8]}\naccuracy:\n  samples: examples/digits/samples.npz\n",
)
MODULE_MISSING = Rule(
    "ORTC304",
    "module-missing",
    "The module of an entry point does not exist.",
    "`package.module:function` is looked for under the root of the project, then among the installed packages. Nothing "
    "is imported for this check.",
    bad='accuracy:\n  metric: {entrypoint: "examples.bert.stss:spearman", max_drop: 0.01}\n',
    good='accuracy:\n  metric: {entrypoint: "examples.bert.sts:spearman", max_drop: 0.01}\n',
)
FUNCTION_MISSING = Rule(
    "ORTC305",
    "function-missing",
    "The module of an entry point does not define its function.",
    "The module's text is read, not run: a function counts when the module defines, assigns or imports its name.",
    bad='accuracy:\n  metric: {entrypoint: "examples.bert.sts:pearson", max_drop: 0.01}\n',
    good='accuracy:\n  metric: {entrypoint: "examples.bert.sts:spearman", max_drop: 0.01}\n',
)
REVISION_MOVES = Rule(
    "ORTC306",
    "revision-moves",
    "The revision is a branch or a tag, not a commit.",
    "A branch is another model tomorrow, and a tag can be moved. The 40 digits of a commit always name the same bytes.",
    bad="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n  revision: main\n  files:\n"
    "    config.json: 953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41\n"
    "    model.safetensors: 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\n",
    good="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n"
    "  revision: 86b5e0934494bd15c9632b12f734a8a67f723594\n",
    severity="warning",
)
REVISION_UNPINNED = Rule(
    "ORTC331",
    "revision-unpinned",
    "The revision is a branch or a tag, and no digest says which files are meant.",
    "Whoever may push to the repository would decide what is built. Either the commit or the digests in `files` say "
    "which model is meant; `files` has to name the weights, too.",
    bad="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n  revision: main\n",
    good="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n"
    "  revision: 86b5e0934494bd15c9632b12f734a8a67f723594\n",
)
REVISION_MISSING = Rule(
    "ORTC307",
    "revision-missing",
    "A model of the hub without a revision.",
    "Without one, the build takes whatever the default branch holds that day.",
    bad="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n",
    good="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n"
    "  revision: 86b5e0934494bd15c9632b12f734a8a67f723594\n",
)
PICKLE = Rule(
    "ORTC308",
    "pickled-model",
    "A file that runs code when it is read.",
    "A pickle carries instructions that Python executes while loading. ortc reads safetensors, and torch files with "
    "weights_only=True, which holds tensors and nothing else.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n  weights: model.pkl\nexport:\n'
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n"
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
)
FORMAT = Rule(
    "ORTC309",
    "unexpected-format",
    "A file is of another format than its source reads.",
    "`onnx` reads .onnx, `exported_program` .pt2; weights of `pytorch` are .safetensors, or .pt, .pth and .bin with "
    "weights_only=True. TorchScript holds a module whole, and is loaded by the function that `entrypoint` names.",
    bad="model:\n  source: onnx\n  path: model.pt2\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n",
)
MIRROR_SCHEME = Rule(
    "ORTC310",
    "mirror-scheme",
    "A mirror of an unknown kind.",
    "A mirror is `package:module/dir` (inside an installed Python package), `path:dir` (under the root of the project) "
    "or a URL of a store of files, like `s3://bucket/dir`. Other file systems of fsspec run programs, log in to "
    "machines or unpack archives, and URLs that combine several are not taken.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [s4://models/bert]\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [s3://models/bert]\n",
)
MIRROR_MISSING = Rule(
    "ORTC311",
    "mirror-missing",
    "A mirror's directory does not exist.",
    "Mirrors are tried one after the other, so this one is passed over; most likely its path is mistyped.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    '  mirrors: ["path:examples/bert-bse"]\n',
    good="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    '  mirrors: ["path:examples/bert-base"]\n',
    severity="warning",
)
SECRET = Rule(
    "ORTC312",
    "secret-inline",
    "A value, a key or a comment looks like a password, a token or a key.",
    "A spec is read by everybody who reads the repository, and its values end up in reports and bundles. Credentials "
    "belong into the environment: HF_TOKEN for the hub, the usual variables of S3, GCS and Azure for mirrors. Take "
    "this one out of the history and revoke it.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [https://user:password@models.example.org/bert]\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [https://models.example.org/bert]\n",
)
UNKNOWN_TASK = Rule(
    "ORTC313",
    "unknown-task",
    "A task that ortc knows no head for.",
    "The task chooses the class of transformers that loads the model with its head.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  task: feature-extracting\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  task: feature-extraction\n",
)
TEACHER_METRIC = Rule(
    "ORTC314",
    "teacher-without-metric",
    "A teacher's `max_drop` without a task metric.",
    "`max_drop` says how far `accuracy.metric` may fall below its value for the teacher. Without a metric there is "
    "nothing to compare.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  teacher:\n"
    "    model: {source: huggingface, path: examples/bert-base, weights: random}\n    max_drop: 0.02\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  teacher:\n"
    "    model: {source: huggingface, path: examples/bert-base, weights: random}\n    cosine: 0.9\n",
)
TEACHER_OUTPUT = Rule(
    "ORTC315",
    "teacher-output",
    "An output that is compared with the teacher's is not kept.",
    "Outputs are compared by name, on what ships: those of `model.teacher.outputs` must be among `export.outputs`.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  teacher:\n"
    "    model: {source: huggingface, path: examples/bert-base, weights: random}\n"
    "    outputs: [pooler_output]\n    cosine: 0.9\nexport:\n  outputs: [last_hidden_state]\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  teacher:\n"
    "    model: {source: huggingface, path: examples/bert-base, weights: random}\n"
    "    outputs: [last_hidden_state]\n    cosine: 0.9\nexport:\n  outputs: [last_hidden_state]\n",
)
GENERATION = Rule(
    "ORTC316",
    "generation",
    "A task that generates token by token.",
    "Generation is a loop: each step runs the model on one more token, with the keys and values of all before it as "
    "inputs and outputs, and a search over what comes out. A bundle is one graph that answers one request, and its "
    "gates compare one answer with PyTorch's. onnxruntime-genai has a model builder for graphs with such a cache, and "
    "the runtime that drives them; ortc does not hand models over to it: its graphs have an opset and operators of "
    "their own, and its runtime makes the session, so that neither the loader's checks nor a gate would judge what is "
    "served (docs/architectures.md says what was tried). What is one forward pass of the same model can be built: "
    "`causal-lm` (logits of every position, for scoring and ranking), `text-classification`, `feature-extraction` "
    "(hidden states), and `text-encoding` (the encoder of an encoder-decoder model).",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  task: text-generation\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\n  task: causal-lm\n",
)
REPOSITORY_CODE = Rule(
    "ORTC317",
    "repository-code",
    "A model's repository brings code of its own.",
    "`auto_map` in config.json, or in the configuration of a tokenizer or a processor, names Python files of the "
    "repository, and so do modules of modules.json that are not sentence-transformers' own. ortc runs none of them. "
    "The stock architecture of the same name computes something else, so it is not built in their place. The build "
    "also refuses a class in `architectures` that transformers does not have. A function of yours that builds the "
    "model, from code that you have read and keep beside the spec, is a `pytorch` source.",
    bad="$ cat models/encoder/config.json\n"
    '{"model_type": "bert", "auto_map": {"AutoModel": "modeling_encoder.Encoder"}, ...}\n',
    good='model:\n  source: pytorch\n  entrypoint: "models.encoder:build"\n'
    "  weights: models/encoder/model.safetensors\n",
)
REPOSITORY_PARTS = Rule(
    "ORTC318",
    "repository-parts",
    "A model's repository has parts that the bundle would be without.",
    "A bundle is one forward pass of a class of transformers, with the pooling and the layers of modules.json after "
    "it. An adapter beside its base, a head in a file of its own, and further files of weights are not in it. "
    "`interface: tensors` says that the tensors of the model without them are wanted, and without modules.json; the "
    "report and the manifest then name what is left out. An adapter in a directory of its own is merged with "
    "`model.adapter`. The build looks into the checkpoint as well, and asks the same of trained heads that nothing "
    "loads.",
    bad="$ ls models/encoder\nadapter_config.json  adapter_model.safetensors  config.json  model.safetensors\n",
    good="model:\n  source: huggingface\n  path: models/encoder\n  interface: tensors\n",
)
WEIGHTS_UNSAID = Rule(
    "ORTC319",
    "weights-unsaid",
    "A `pytorch` source does not say where its weights come from.",
    "A function that builds a module gives it the numbers that its constructor draws, until trained ones are loaded. "
    "`weights` says which: the path of a state dict; `entrypoint`, where the function loads them itself; `none`, where "
    "the module has no parameters and no buffers; or `random`, where the architecture is measured, and the bundle is "
    "not fit to serve. The build holds the module to it: with `entrypoint` as with a path, no number may depend on "
    "the seed of a random generator, and with `none` there may be none. `sha256` belongs to a path.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\nexport:\n'
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n"
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
)
ENTRYPOINT_INSTALLED = Rule(
    "ORTC330",
    "entrypoint-installed",
    "An entry point that is not a function of the project.",
    "An entry point is called with the arguments that the spec gives, so a spec that could name any installed function "
    "could run any program. Entry points are functions of modules below the project's root, compiled from source; "
    "functions that such a module only imports are refused when they are called. `--trust-entrypoint PACKAGE`, or "
    "ORTC_TRUST_ENTRYPOINT with a list of packages, lets specs name functions of an installed package, too "
    "(docs/trust.md).",
    bad='accuracy:\n  metric: {entrypoint: "shutil:rmtree", max_drop: 0.01}\n',
    good='accuracy:\n  metric: {entrypoint: "examples.bert.sts:spearman", max_drop: 0.01}\n',
)

TENSOR_TYPE = Rule(
    "ORTC332",
    "tensor-type",
    "An input or output of an ONNX file has a type that no bundle takes or gives.",
    "A bundle takes and gives tensors of float16, float32, float64, integers and booleans, and takes strings. Strings "
    "that a graph makes, bfloat16, float8, complex numbers, sequences and maps have no form in requests and answers. "
    "Names of classes that a classifier of ai.onnx.ml gives become their numbers, and its maps become scores by class; "
    "the manifest has the names. Outputs that `export.outputs` leaves out may be of any type.",
    bad="model:\n  source: onnx\n  path: tests/diagnostics/onnx/text.onnx\n",
    good="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n"
    "  dynamic_axes: {batch: {min: 1, max: 4}}\n",
)
TENSOR_NAME = Rule(
    "ORTC333",
    "tensor-name",
    "An input or output of an ONNX file has a name that no bundle can have.",
    "Names of inputs and outputs are in manifests, requests, logs and file names of arrays. A name is one printable "
    "line of at most 1,000 characters, and one input or output has it. Messages show other characters written out.",
    bad="model:\n  source: onnx\n  path: tests/diagnostics/onnx/line-break.onnx\n",
    good="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n"
    "  dynamic_axes: {batch: {min: 1, max: 4}}\n",
)
TENSOR_MISSING = Rule(
    "ORTC334",
    "tensor-missing",
    "`export` names other inputs or outputs than the ONNX file has.",
    "`export.inputs` declares every input of the graph, in the order that the bundle takes them. Inputs with a default "
    "value may be left out, and are constants then. `export.outputs` keeps outputs of the graph by their names.",
    bad="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n"
    "  dynamic_axes: {batch: {min: 1, max: 4}}\n  outputs: [logits]\n",
    good="model:\n  source: onnx\n  path: tests/diagnostics/onnx/plain.onnx\nexport:\n"
    "  dynamic_axes: {batch: {min: 1, max: 4}}\n  outputs: [y]\n",
)
MIRROR_HTTP = Rule(
    "ORTC335",
    "mirror-http",
    "A mirror is read over plain HTTP.",
    "Digests say which bytes are taken, but anybody on the way sees which, and may hold them back. Use https; hosts of "
    "an internal network may be allowed by `--allow-http HOST`. A mirror may redirect to https, or to plain HTTP of "
    "such a host, and never to an address at which a machine gets its credentials.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [http://models.internal/bert]\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n"
    "  files: {config.json: 7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20}\n"
    "  mirrors: [https://models.internal/bert]\n",
)
DIGEST_DIFFERS = Rule(
    "ORTC336",
    "digest-differs",
    "A file is not the one whose digest the spec declares.",
    "A digest says which bytes were meant, so that a file that was retrained, cut off or swapped is never built in the "
    "name of the other. `ortc check` compares the digests of local files: of `sha256`, and of `files` beside `path`. "
    "Where the file is meant to be another, `ortc lock --update-digests SPEC` writes the new digests and changes "
    "nothing else.",
    bad='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\n  sha256: " + "0f" * 32 + "\nexport:\n"
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
    good='model:\n  source: pytorch\n  entrypoint: "examples.digits.model:build"\n'
    "  weights: examples/digits/weights.safetensors\nexport:\n"
    "  inputs:\n    image: {dtype: float32, shape: [1, 1, 8, 8]}\n",
)
POSITIONS = Rule(
    "ORTC337",
    "positions",
    "A sequence may be longer than the model has positions.",
    "Transformers have a table of positions, and fail beyond its end, or answer what nobody trained. The `max` of the "
    "axis `sequence` is a promise that is proven, so that it may be no longer than the table; config.json says how "
    "long that is.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\nexport:\n"
    "  dynamic_axes:\n    batch: {min: 1, max: 16}\n    sequence: {min: 1, max: 1024}\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  weights: random\nexport:\n"
    "  dynamic_axes:\n    batch: {min: 1, max: 16}\n    sequence: {min: 1, max: 512}\n",
)
ADAPTER_FILE = Rule(
    "ORTC338",
    "adapter-file",
    "`model.adapter.files` lists a file that no merge reads.",
    "An adapter of PEFT is its configuration and its weights: adapter_config.json and adapter_model.safetensors. Both "
    "are merged into the weights of `model`, so that the bundle has no trace of the adapter but its digests and its "
    "licence. A tokenizer beside the adapter is not read: the one of the base counts. Pickles are read nowhere.",
    bad="model:\n  source: huggingface\n  path: examples/bert-base\n  adapter:\n    path: examples/bert-base\n"
    "    files: {adapter_model.bin: " + "0f" * 32 + "}\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n  license: apache-2.0\n"
    "  adapter:\n    path: examples/bert-base\n    license: mit\n"
    "    files: {adapter_model.safetensors: " + "0f" * 32 + "}\n",
)
CHECKPOINT_QUANTIZED = Rule(
    "ORTC339",
    "checkpoint-quantized",
    "The weights of a checkpoint are quantized already.",
    "compressed-tensors, GPTQ, AWQ, bitsandbytes and torchao store integers in forms of their own, with kernels that "
    "ONNX Runtime does not have. A reference of such weights would hide what their quantization cost. ortc quantizes "
    "from floating point for each target, and measures the difference to it.",
    bad="$ cat models/encoder/config.json\n"
    '{"model_type": "bert", "quantization_config": {"quant_method": "gptq", "bits": 4}, ...}\n',
    good="model:\n  source: huggingface\n  path: models/encoder-fp32\n",
)

RULES = (
    FILE_MISSING,
    SAMPLES_MISSING,
    SAMPLES_FORMAT,
    MODULE_MISSING,
    FUNCTION_MISSING,
    REVISION_MOVES,
    REVISION_MISSING,
    PICKLE,
    FORMAT,
    MIRROR_SCHEME,
    MIRROR_MISSING,
    SECRET,
    UNKNOWN_TASK,
    TEACHER_METRIC,
    TEACHER_OUTPUT,
    GENERATION,
    REPOSITORY_CODE,
    REPOSITORY_PARTS,
    WEIGHTS_UNSAID,
    ENTRYPOINT_INSTALLED,
    REVISION_UNPINNED,
    TENSOR_TYPE,
    TENSOR_NAME,
    TENSOR_MISSING,
    MIRROR_HTTP,
    DIGEST_DIFFERS,
    POSITIONS,
    ADAPTER_FILE,
    CHECKPOINT_QUANTIZED,
)
