"""ORTC15x: what a spec takes from another spec or from the environment."""

from ortc.rules.model import Rule

BASE_MISSING = Rule(
    "ORTC150",
    "base-missing",
    "The spec that `base` names cannot be read.",
    "The path starts from the directory of the spec that names it.",
    bad="$ head -1 specs/bert-large.yaml\nbase: bret.yaml",
    good="$ head -1 specs/bert-large.yaml\nbase: bert.yaml",
)
BASE_CYCLE = Rule(
    "ORTC151",
    "base-cycle",
    "A spec inherits from itself through its `base`, or over more than eight files.",
    "What a key is could never be told in a circle, and nobody can review a longer chain.",
    bad="$ head -1 specs/bert.yaml specs/common.yaml\n==> specs/bert.yaml <==\nbase: common.yaml\n\n"
    "==> specs/common.yaml <==\nbase: bert.yaml",
    good="$ head -1 specs/bert.yaml specs/common.yaml\n==> specs/bert.yaml <==\nbase: common.yaml\n\n"
    "==> specs/common.yaml <==\naccuracy:",
)
ENVIRONMENT_PLACE = Rule(
    "ORTC155",
    "environment-place",
    "`${env:NAME}` in a value that may not come from the environment.",
    "A reviewer reads the spec, not the environment of the machine that builds. So only what differs between machines "
    "and releases may come from there: `version`, `model.path` and `model.mirrors`. For anything else there is "
    "`--set`, which the command shows.",
    bad="name: ${env:NAME}\n",
    good="version: ${env:VERSION}\n",
)
ENVIRONMENT_SYNTAX = Rule(
    "ORTC156",
    "environment-syntax",
    "`${...}` that is not `${env:NAME}`.",
    "NAME is made of letters, digits and `_`, and does not start with a digit. There are no defaults and no nesting.",
    bad="version: ${VERSION}\n",
    good="version: ${env:VERSION}\n",
)
ENVIRONMENT_UNSET = Rule(
    "ORTC157",
    "environment-unset",
    "A variable of the environment is not set, is empty, or holds unprintable characters.",
    "An empty text in its place would change the meaning of the value without a word.",
    bad="$ ortc check specs/bert.yaml   # with `version: ${env:VERSION}`",
    good="$ VERSION=1.2.0 ortc check specs/bert.yaml   # with `version: ${env:VERSION}`",
)

RULES = (BASE_MISSING, BASE_CYCLE, ENVIRONMENT_PLACE, ENVIRONMENT_SYNTAX, ENVIRONMENT_UNSET)
