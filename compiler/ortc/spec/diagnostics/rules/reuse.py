"""ORTC15x: what a spec takes from another spec or from the environment."""

from ortc.spec.diagnostics.rules.model import Rule

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
    good="version: ${env:ORTC_VERSION}\n",
)
ENVIRONMENT_SYNTAX = Rule(
    "ORTC156",
    "environment-syntax",
    "`${...}` that is not `${env:NAME}`.",
    "NAME is made of letters, digits and `_`, and does not start with a digit. There are no defaults and no nesting.",
    bad="version: ${VERSION}\n",
    good="version: ${env:ORTC_VERSION}\n",
)
ENVIRONMENT_UNSET = Rule(
    "ORTC157",
    "environment-unset",
    "A variable of the environment is not set, is empty, or holds unprintable characters.",
    "An empty text in its place would change the meaning of the value without a word.",
    bad="$ ortc check specs/bert.yaml   # with `version: ${env:ORTC_VERSION}`",
    good="$ ORTC_VERSION=1.2.0 ortc check specs/bert.yaml   # with `version: ${env:ORTC_VERSION}`",
)
ENVIRONMENT_REFUSED = Rule(
    "ORTC158",
    "environment-refused",
    "A variable of the environment that the caller does not offer to specs.",
    "Paths and mirrors reach logs and servers, and the environment of a build holds passwords. So a spec may refer to "
    "variables whose names begin with `ORTC_`, without ortc's own settings, and to those that the command names with "
    "`--env NAME` (docs/trust.md). Messages show the reference and not the value.",
    bad="$ ortc check specs/bert.yaml   # with `version: ${env:GITHUB_TOKEN}`",
    good="$ ortc check specs/bert.yaml --env RELEASE   # with `version: ${env:RELEASE}`",
)
OUTSIDE_PROJECT = Rule(
    "ORTC152",
    "outside-project",
    "A spec, its `base` or its profile is outside of the project, or is a link that leads there.",
    "Messages show lines of the file, so a link in a checkout could show any file of the machine. The project is the "
    "repository that the spec is in; without one the directory that holds `pyproject.toml`, else that of the spec.",
    bad="$ head -1 specs/bert.yaml\nbase: /etc/passwd",
    good="$ head -1 specs/bert.yaml\nbase: ../common/bert.yaml",
)

RULES = (
    BASE_MISSING,
    BASE_CYCLE,
    OUTSIDE_PROJECT,
    ENVIRONMENT_PLACE,
    ENVIRONMENT_SYNTAX,
    ENVIRONMENT_UNSET,
    ENVIRONMENT_REFUSED,
)
