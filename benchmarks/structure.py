"""Print how large the code is, and how many files and functions one record passes: `python -m benchmarks.structure [FOLDER]`.

The call graph is static: a function reaches every function or class of ours that its body names, directly or as `module.name`;
a class reaches what its methods name. Calls through a table or an argument count where the name is written.
"""

from __future__ import annotations

import argparse
import ast
import json
import statistics
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = ("pipeline", "db")
FLOWS = {
    "webhook": ("receive a webhook, and bring its record to Hull", ("web.webhooks",), ("incoming",)),
    "page": ("a page of a full fetch", (), ("incoming",)),
    "outgoing User": ("a User that Hull reports, and its read-back", ("web.notifications",), ("outgoing", "incoming")),
}
"""Flow → what it is, the modules of `pipeline` where it enters, and the task modules that carry it on."""


@dataclass
class Module:
    name: str
    lines: int
    names: dict[str, str] = field(default_factory=dict)
    """Name in the module → its meaning, as `module` or `module:definition`."""
    bodies: dict[str, list[ast.AST]] = field(default_factory=dict)
    """Definition → what is part of it; `` for statements of the module itself."""


def read_modules(root: Path) -> dict[str, Module]:
    """Return every module below `root` that belongs to us, by dotted name."""
    found: dict[str, Module] = {}
    trees: dict[str, ast.Module] = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            if "migrations" in path.parts:
                continue
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            text = path.read_text()
            found[name] = Module(name, text.count("\n"))
            trees[name] = ast.parse(text)
    for name, tree in trees.items():
        _fill(found[name], tree, found)
    return found


def _fill(module: Module, tree: ast.Module, modules: dict[str, Module]) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                meaning = target if target in modules else f"{node.module}:{alias.name}"
                if target in modules or node.module in modules:
                    module.names[alias.asname or alias.name] = meaning
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            module.names[node.name] = f"{module.name}:{node.name}"
            module.bodies[node.name] = [node]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for variable in targets:
                if isinstance(variable, ast.Name):
                    module.names[variable.id] = f"{module.name}:{variable.id}"
                    module.bodies[variable.id] = [node]


def reached(modules: dict[str, Module], starts: list[str]) -> set[str]:
    """Return all definitions (`module:name`) that the definitions `starts` reach, themselves included."""
    seen: set[str] = set()
    waiting = list(starts)
    while waiting:
        place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        module_name, _, definition = place.partition(":")
        module = modules[module_name]
        for body in module.bodies.get(definition, []):
            waiting.extend(_named(module, body, modules) - seen)
    return seen


def _named(module: Module, body: ast.AST, modules: dict[str, Module]) -> set[str]:
    found = set()
    for node in ast.walk(body):
        if isinstance(node, ast.Name):
            meaning = module.names.get(node.id, "")
            if ":" in meaning:
                found.add(_defined(meaning, modules))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            meaning = module.names.get(node.value.id, "")
            if meaning in modules and node.attr in modules[meaning].names:
                found.add(_defined(modules[meaning].names[node.attr], modules))
    return {place for place in found if ":" in place}


def _defined(place: str, modules: dict[str, Module]) -> str:
    """Follow re-exports to where a name is defined."""
    for _ in range(5):
        module_name, _, definition = place.partition(":")
        module = modules.get(module_name)
        if module is None:
            return ""
        if definition in module.bodies:
            return place
        place = module.names.get(definition, "")
        if ":" not in place:
            return ""
    return ""


def measure(root: Path) -> dict[str, object]:
    """Return the sizes and the reach of each flow, as plain values."""
    modules = read_modules(root)
    by_package: dict[str, list[int]] = defaultdict(list)
    for module in modules.values():
        by_package[
            ".".join(module.name.split(".")[:2]) if module.name.startswith("pipeline.") else module.name.split(".")[0]
        ].append(module.lines)
    lengths = [module.lines for module in modules.values()]
    classes = defaultdict(list)
    for module in modules.values():
        for name, (node, *_) in module.bodies.items():
            if isinstance(node, ast.ClassDef) and not name.startswith("_"):
                classes[name].append(module.name)
    flows = {}
    for flow, (_what, entrances, tasks) in FLOWS.items():
        starts = [
            f"{name}:{definition}"
            for name, module in modules.items()
            if name in {f"pipeline.{each}" for each in entrances} | {f"pipeline.tasks.{each}" for each in tasks}
            for definition, (node, *_) in module.bodies.items()
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        places = reached(modules, starts)
        functions = {
            place
            for place in places
            if isinstance(modules[place.partition(":")[0]].bodies[place.partition(":")[2]][0], ast.FunctionDef)
        }
        flows[flow] = {"files": len({place.partition(":")[0] for place in places}), "functions": len(functions)}
    return {
        "files": len(lengths),
        "lines": sum(lengths),
        "median": statistics.median(lengths),
        "longest": max(lengths),
        "over_400": sorted(module.name for module in modules.values() if module.lines > 400),
        "packages": {name: {"files": len(each), "lines": sum(each)} for name, each in sorted(by_package.items())},
        "public_classes_of_one_name": {name: where for name, where in sorted(classes.items()) if len(where) > 1},
        "flows": flows,
    }


def main() -> None:
    """Print the figures of a checkout."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument(
        "folder", nargs="?", type=Path, default=Path(__file__).parents[1], help="a checkout; default this one"
    )
    arguments.add_argument("--json", action="store_true", help="print JSON")
    chosen = arguments.parse_args()
    found = measure(chosen.folder)
    if chosen.json:
        print(json.dumps(found, indent=2))
        return
    print(f"pipeline and db, without migrations: {found['lines']:,} lines in {found['files']} files")
    print(f"a file: median {found['median']:g} lines, longest {found['longest']}")
    for name, each in found["packages"].items():  # type: ignore[attr-defined]
        print(f"  {name:<28}{each['files']:>5} files {each['lines']:>7,} lines")
    print(f"over 400 lines: {', '.join(found['over_400']) or 'none'}")  # type: ignore[arg-type]
    print(f"public classes that share a name: {len(found['public_classes_of_one_name'])}")  # type: ignore[arg-type]
    for flow, each in found["flows"].items():  # type: ignore[attr-defined]
        print(f"{flow}: {each['files']} files, {each['functions']} functions")


if __name__ == "__main__":
    main()
