"""ORTC10x and ORTC11x: reading a spec as YAML."""

from ortc.spec.diagnostics.rules.model import Rule

UNREADABLE = Rule(
    "ORTC101",
    "unreadable-file",
    "A file cannot be read.",
    "The path does not exist, is a directory, or may not be read by this user.",
    bad="$ ortc check specs/bret.yaml",
    good="$ ortc check specs/bert.yaml",
)
TOO_LARGE = Rule(
    "ORTC102",
    "file-too-large",
    "A spec is larger than 1 MiB or has more than 50000 lines, or a plan is larger than 4 MiB or has more than 100000 "
    "values.",
    "A spec is a few kilobytes of declarations. A file of this size is data, or not a spec at all; samples and weights "
    "lie in files of their own, and the spec names them.",
    bad="$ ortc check model.safetensors",
    good="$ ortc check specs/bert.yaml",
)
NOT_UTF8 = Rule(
    "ORTC103",
    "not-utf8",
    "A file holds bytes that are not UTF-8.",
    "Specs are UTF-8, with or without a byte order mark. Files from older Windows tools are often UTF-16 or Latin-1.",
    bad="$ iconv -t latin1 specs/café.yaml > spec.yaml && ortc check spec.yaml",
    good="$ iconv -f latin1 -t utf-8 spec.yaml > fixed.yaml && ortc check fixed.yaml",
)
CONTROL_CHARACTER = Rule(
    "ORTC104",
    "control-character",
    "A file holds a control character.",
    "Only printable characters, tabs and line breaks are allowed, as themselves or as escapes. Invisible characters "
    "hide changes from a reviewer, and no name, path or number of the spec language needs one.",
    bad='name: "be\brt"\n',
    good='name: "bert"\n',
)
SYNTAX = Rule(
    "ORTC105",
    "yaml-syntax",
    "A file is not well-formed YAML.",
    "The place shown is where the YAML parser could not go on; the mistake is there or just above: an unclosed quote "
    "or bracket, a tab in the indentation, a line that is indented differently from its neighbours.",
    bad="export: {opset: 17\n",
    good="export: {opset: 17}\n",
)
DUPLICATE_KEY = Rule(
    "ORTC106",
    "duplicate-key",
    "A key appears twice in one mapping.",
    "Most YAML loaders keep the last of the two values without a word, so that a reviewer reads one value and the "
    "compiler another.",
    bad="export:\n  opset: 17\n  opset: 18\n",
    good="export:\n  opset: 18\n",
)
NOT_A_MAPPING = Rule(
    "ORTC107",
    "not-a-mapping",
    "The file is empty, or is not a mapping.",
    "A spec is one YAML mapping that starts with `apiVersion` and `kind`.",
    bad="- name: bert\n",
    good="name: bert\n",
)
KEY_NOT_A_STRING = Rule(
    "ORTC108",
    "key-not-a-string",
    "A key is not a string.",
    "Every key of the spec language is a string. A number, a boolean or null as a key is text that lacks its quotes.",
    bad="targets:\n  1: {profile: cpu}\n",
    good='targets:\n  "1": {profile: cpu}\n',
)
TAG = Rule(
    "ORTC109",
    "yaml-tag",
    "A value carries a YAML tag.",
    "Tags choose a type, or run code in some loaders. The spec language knows every type already; quote a value to "
    "make it a string.",
    bad="version: !!str 1.0\n",
    good='version: "1.0"\n',
)
ALIAS = Rule(
    "ORTC110",
    "bad-alias",
    "An alias names no anchor, or the value that it stands in.",
    "`*name` repeats the value that an earlier `&name` marked. It cannot come before it, nor repeat itself.",
    bad="targets:\n  cpu: *budget\n",
    good="targets:\n  edge: &budget {latency_budget: {p99: 100ms}}\n  cpu: *budget\n",
)
TOO_DEEP = Rule(
    "ORTC111",
    "too-deep",
    "Values are nested more than 32 levels deep.",
    "The spec language needs six levels. The limit keeps a hostile or broken file from exhausting the stack.",
    bad="export: " + "[" * 40 + "]" * 40 + "\n",
    good="export: {opset: 17}\n",
)
TOO_MANY_VALUES = Rule(
    "ORTC112",
    "too-many-values",
    "A file holds more than 10000 values, aliases expanded.",
    "Aliases of aliases can make a file of a few lines stand for billions of values. A spec holds a few dozen.",
    bad="a: &a [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\n"
    "c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n",
    good="export: {opset: 17}\n",
)
SEVERAL_DOCUMENTS = Rule(
    "ORTC113",
    "several-documents",
    "A file holds more than one YAML document.",
    "One file is one spec, so that a path names a model. `ortc check` and `ortc build` take several files.",
    bad="name: bert\n---\nname: bert-large\n",
    good="name: bert\n",
)
NUMBER_TOO_LARGE = Rule(
    "ORTC114",
    "number-too-large",
    "A number is beyond what any setting can hold.",
    "Digits in this number are text that lacks its quotes, for example a revision made of digits only, or the exponent "
    "is mistyped.",
    bad="accuracy: {max_abs: 1e999}\n",
    good="accuracy: {max_abs: 1e-4}\n",
)

RULES = (
    UNREADABLE,
    TOO_LARGE,
    NOT_UTF8,
    CONTROL_CHARACTER,
    SYNTAX,
    DUPLICATE_KEY,
    NOT_A_MAPPING,
    KEY_NOT_A_STRING,
    TAG,
    ALIAS,
    TOO_DEEP,
    TOO_MANY_VALUES,
    SEVERAL_DOCUMENTS,
    NUMBER_TOO_LARGE,
)
