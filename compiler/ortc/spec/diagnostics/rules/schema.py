"""ORTC12x to ORTC14x: the shape of a spec, and the arguments of `--set`."""

from ortc.spec.diagnostics.rules.model import Rule

WRONG_KIND = Rule(
    "ORTC120",
    "wrong-kind",
    "`apiVersion` or `kind` says that the file is something else.",
    "They say which language the rest of the file is written in; until they are right, the rest is not looked at.",
    bad="kind: Deployment\n",
    good="kind: ModelDeployment\n",
)
UNKNOWN_KEY = Rule(
    "ORTC121",
    "unknown-key",
    "A key that the spec language does not have.",
    "A misspelt key would leave the default in place without a word, so every unknown key is an error.",
    bad="export:\n  opsett: 17\n",
    good="export:\n  opset: 17\n",
)
MISSING_KEY = Rule(
    "ORTC122",
    "missing-key",
    "A key that must be there is not.",
    "There is no default that would be right for every model.",
    bad="export:\n  dynamic_axes:\n    batch: {min: 1}\n",
    good="export:\n  dynamic_axes:\n    batch: {min: 1, max: 16}\n",
)
WRONG_TYPE = Rule(
    "ORTC123",
    "wrong-type",
    "A value is of another type than its key takes.",
    'Values are never converted: `opset: "17"` is a string, `opset: 17` an integer, and only one of them is meant.',
    bad='export:\n  opset: "17"\n',
    good="export:\n  opset: 17\n",
)
UNQUOTED_STRING = Rule(
    "ORTC124",
    "unquoted-string",
    "YAML read a number, a boolean or null where a string is meant.",
    "Without quotes `1.10` is the number 1.1, and `true` a boolean. In quotes the text stays as written.",
    bad="version: 1.10\n",
    good='version: "1.10"\n',
)
UNKNOWN_VALUE = Rule(
    "ORTC125",
    "unknown-value",
    "A value is not one of those that the key takes.",
    "The key takes one of a few words, which the message lists.",
    bad="export:\n  exporter: dynam\n",
    good="export:\n  exporter: dynamo\n",
)
OUT_OF_RANGE = Rule(
    "ORTC126",
    "out-of-range",
    "A number or a count lies outside the range that the key takes.",
    "The message says the bound. Infinity and not-a-number are never in range: a tolerance of `.inf` would promise "
    "nothing.",
    bad="accuracy:\n  cosine: 1.5\n",
    good="accuracy:\n  cosine: 0.99\n",
)
INVALID_VALUE = Rule(
    "ORTC127",
    "invalid-value",
    "A string is not of the form that the key takes.",
    "Names end up in paths, URLs and image tags, digests are compared, entry points imported: each has one form, which "
    "the message gives.",
    bad="name: My Model\n",
    good="name: my-model\n",
)
BAD_QUANTITY = Rule(
    "ORTC128",
    "bad-quantity",
    "A duration or a size without a unit, or with an unknown one.",
    "`p99: 8` could be seconds or milliseconds, so the unit is part of the value: us, ms, s, min; B, kB, MB, GB "
    "(decimal), KiB, MiB, GiB (binary).",
    bad="targets:\n  cpu: {latency_budget: {p99: 120}}\n",
    good="targets:\n  cpu: {latency_budget: {p99: 120ms}}\n",
)
INCONSISTENT_KEYS = Rule(
    "ORTC129",
    "inconsistent-keys",
    "Keys of one mapping exclude or need each other.",
    "Each key is right by itself; together they are not, and the message says which of them to keep or to add.",
    bad="model:\n  source: huggingface\n  id: google-bert/bert-base-uncased\n  path: examples/bert-base\n",
    good="model:\n  source: huggingface\n  path: examples/bert-base\n",
)
FORMER_KEY = Rule(
    "ORTC130",
    "former-key",
    "A profile uses a key that the language had before.",
    "Until version 1.0 the language `ortc/v1alpha1` changes in place. A quantization was one word and up to seven keys "
    "beside it, of which some had no effect; it is one mapping now, whose `kind` decides which keys it takes. "
    "`placement` became a part of `gates`. `ortc migrate FILE` rewrites a profile, or every profile of a spec, and "
    "keeps comments and formatting.",
    bad="$ grep int8 targets/mine.yaml\n"
    "  - {name: int8, precision: int8, quantization: int8-dynamic, operators: [MatMul], smooth: true}",
    good="$ ortc migrate targets/mine.yaml && grep -A2 int8 targets/mine.yaml\n"
    "targets/mine.yaml: rewritten\n"
    "  - {name: int8, precision: int8, quantization: {kind: dynamic, operators: [MatMul], smoothing: layer-norm}}",
)
OVERRIDE_SYNTAX = Rule(
    "ORTC140",
    "override-syntax",
    "An argument of `--set` is not `key.path=value`.",
    "The left side is the path of keys with dots between them; a key that holds a dot itself is quoted. The right side "
    "is YAML, read as in the file.",
    bad="$ ortc check specs/bert.yaml --set export.opset",
    good="$ ortc check specs/bert.yaml --set export.opset=18",
)
OVERRIDE_PATH = Rule(
    "ORTC141",
    "override-path",
    "An argument of `--set` leads through a value that is not a mapping.",
    "A path can create mappings that are not there, but it does not turn a string, a number or a list into one.",
    bad="$ ortc check specs/bert.yaml --set export.opset.version=18",
    good="$ ortc check specs/bert.yaml --set export.opset=18",
)
OVERRIDE_BASE = Rule(
    "ORTC142",
    "override-base",
    "An argument of `--set` names a `base`.",
    "What a spec inherits from is read before overrides are applied, and a reviewer should find it in the file.",
    bad="$ ortc check specs/bert.yaml --set base=common.yaml",
    good="$ head -1 specs/bert.yaml\nbase: common.yaml",
)

RULES = (
    WRONG_KIND,
    UNKNOWN_KEY,
    MISSING_KEY,
    WRONG_TYPE,
    UNQUOTED_STRING,
    UNKNOWN_VALUE,
    OUT_OF_RANGE,
    INVALID_VALUE,
    BAD_QUANTITY,
    INCONSISTENT_KEYS,
    FORMER_KEY,
    OVERRIDE_SYNTAX,
    OVERRIDE_PATH,
    OVERRIDE_BASE,
)
