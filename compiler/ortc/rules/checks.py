"""ORTC2xx: parts of a spec, each right by itself, that do not fit together or do not fit the target."""

from ortc.rules.model import Rule

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

RULES = (UNKNOWN_TARGET, PROFILE_NAME)
