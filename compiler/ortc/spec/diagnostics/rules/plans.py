"""ORTC16x: a plan that is built instead of a spec."""

from ortc.spec.diagnostics.rules.model import Rule

PLAN_SYNTAX = Rule(
    "ORTC160",
    "plan-syntax",
    "A plan is not one well-formed JSON object.",
    "`ortc build --plan` reads what `ortc plan SPEC --print` writes: one JSON object, without comments and without "
    "anything after it. A document that ends early was cut off while it was copied or written.",
    bad="$ ortc plan specs/bert.yaml --print | head -c 1000 | ortc build --plan -",
    good="$ ortc plan specs/bert.yaml --print | ortc build --plan -",
)
PLAN_OTHER = Rule(
    "ORTC161",
    "plan-of-another-ortc",
    "A plan is of another format, of another version of ortc, or names other pins than this ortc has.",
    "A plan pins everything that a build depends on, ortc's own version and the digests of the packages that the "
    "bundle installs included. With another ortc the same plan would give another bundle under the same digest, so it "
    "is refused. Make the plan again and compare the two, or install the ortc that made it.",
    bad="$ ortc build --plan plan.json   # made by ortc 0.0.9",
    good="$ ortc plan specs/bert.yaml --print > plan.json && ortc build --plan plan.json",
)
PLAN_INCONSISTENT = Rule(
    "ORTC162",
    "plan-inconsistent",
    "The targets, the variant, the profiles or the pins of a plan do not fit its spec.",
    "A plan file holds a spec with its base and overrides, the profile of every target, and the choices of "
    "`ortc plan`. Every value in it can be edited, and is checked as in a spec or a profile. Each target of the spec "
    "needs a profile, each chosen target has to be in the spec, a chosen variant in the profile of each chosen target, "
    "and `pins` lists the pinned sets that the profiles name.",
    bad="$ jq '.targets = [\"gpu\"]' plan.json | ortc build --plan -",
    good="$ jq '.spec.accuracy.max_abs = 1e-5' plan.json | ortc build --plan -",
)

RULES = (PLAN_SYNTAX, PLAN_OTHER, PLAN_INCONSISTENT)
