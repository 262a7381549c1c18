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
    "A value of a plan is not the one that follows from the rest of it.",
    "A plan can be edited: budgets, tolerances, precisions and variants are done as they stand. Other values follow "
    "from those: the shape matrix from the axes and their bounds, the IR version from the opset, the variants from the "
    "precision. Were they done as written, the bundle would promise more than was proven.",
    bad="$ jq '.cases = []' plan.json | ortc build --plan -",
    good="$ jq '.accuracy.max_abs = 1e-5' plan.json | ortc build --plan -",
)

RULES = (PLAN_SYNTAX, PLAN_OTHER, PLAN_INCONSISTENT)
