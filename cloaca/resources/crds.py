"""Write the CustomResourceDefinitions and the reference page from the types: ``python -m cloaca.resources.crds crds``.

What it writes is under version control, and a test fails when it is stale; ``make crds`` renews it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cloaca.resources import STORED_KINDS, Resource
from cloaca.resources.fielddocs import class_doc
from cloaca.resources.openapi import RULES, structural
from cloaca.resources.ref import GROUP, VERSION

HEADER = "# Written by `make crds` from the types in cloaca/resources; edit those.\n"
CATEGORIES = ("cloacina",)


def definition(kind: type[Resource[Any, Any]]) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind, ready for ``kubectl apply``."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.PLURAL}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "cloacina", "app.kubernetes.io/part-of": "cloacina"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.KIND,
                "listKind": f"{kind.KIND}List",
                "plural": kind.PLURAL,
                "singular": kind.KIND.lower(),
                "shortNames": list(kind.SHORT_NAMES),
                "categories": list(CATEGORIES),
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _printer_columns(kind),
                    **(
                        {"selectableFields": [{"jsonPath": path} for path in kind.SELECTABLE]}
                        if kind.SELECTABLE
                        else {}
                    ),
                    "schema": {"openAPIV3Schema": object_schema(kind)},
                }
            ],
        },
    }


def object_schema(kind: type[Resource[Any, Any]]) -> dict[str, Any]:
    """The structural schema of one kind; the API server itself knows apiVersion, kind and metadata."""
    schema = structural(kind)
    properties = schema["properties"]
    for known in ("apiVersion", "kind"):
        properties[known] = {"type": "string", "description": properties[known]["description"]}
    properties["metadata"] = {"type": "object"}
    for part in ("spec", "status"):
        properties[part]["description"] = class_doc(kind.model_fields[part].annotation)
    # With observedGeneration 0 in it, an object that nobody has looked at reads as "in progress", never as fine.
    properties["status"]["default"] = {}
    return {
        "type": "object",
        "description": schema["description"],
        "required": schema["required"],
        RULES: schema[RULES],
        "properties": properties,
    }


def _printer_columns(kind: type[Resource[Any, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "name": column.header,
            "type": column.type,
            "jsonPath": column.path,
            "description": column.description,
            **({"priority": column.priority} if column.priority else {}),
        }
        for column in kind.COLUMNS
    ]


def rendered() -> Mapping[str, str]:
    """File name → text, for every definition."""
    return {
        f"{GROUP}_{kind.PLURAL}.yaml": HEADER
        + yaml.safe_dump(definition(kind), sort_keys=False, width=110, allow_unicode=True)
        for kind in STORED_KINDS
    }


def main(arguments: list[str] | None = None) -> None:
    """Write every file; the reference page goes to ``docs/reference/resources.md`` beside the folder, or elsewhere."""
    from cloaca.resources.reference import page

    parser = argparse.ArgumentParser(prog="python -m cloaca.resources.crds", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the CustomResourceDefinitions go")
    parser.add_argument("--reference", type=Path, help="the reference page (docs/reference/resources.md beside FOLDER)")
    chosen = parser.parse_args(arguments)
    reference = chosen.reference or chosen.folder.resolve().parent / "docs" / "reference" / "resources.md"
    chosen.folder.mkdir(parents=True, exist_ok=True)
    reference.parent.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (chosen.folder / name).write_text(text, encoding="utf-8")
    reference.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
