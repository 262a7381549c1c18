"""Write targets/data/settings.json: what loaders let session.json say, for every supported runtime.

A loader has one list for all versions of ONNX Runtime. What a version does not know it ignores without a word, so the
names of each runtime are those that are on the loader's list and in the runtime's own table.

    python targets/generate_settings.py
"""

import json
import sys
from pathlib import Path
from typing import Any

from generate_common import to_json

HERE = Path(__file__).parent
PLACE = HERE / "data" / "settings.json"


def document(settings: Any) -> dict[str, Any]:
    """The table, from the lists of a loader's `settings` and the tables of the runtimes."""
    table = json.loads((HERE / "data" / "runtimes.json").read_bytes())
    return {
        "format_version": 1,
        "environment": sorted(settings.ENVIRONMENT),
        "openvino_properties": sorted(settings.OPENVINO_PROPERTIES),
        "runtimes": [
            {
                "package": runtime["package"],
                "version": runtime["version"],
                "session_options": sorted(settings.SESSION_OPTIONS & runtime["session_options"].keys()),
                "config_entries": sorted(settings.CONFIG_ENTRIES & set(runtime["config_keys"])),
                "provider_options": {
                    provider: sorted(settings.PROVIDER_OPTIONS[provider] & options.keys())
                    for provider, options in sorted(runtime["provider_options"].items())
                    if provider in settings.PROVIDER_OPTIONS
                },
            }
            for runtime in table["runtimes"]
        ],
    }


def text(settings: Any) -> str:
    """The file's text."""
    return to_json(document(settings))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "templates" / "runtime"))
    from loading import settings as installed

    PLACE.write_text(text(installed), encoding="utf-8")
