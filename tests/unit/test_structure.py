"""The figures of the code's structure: what `python -m benchmarks.structure` counts, on a planted checkout."""

from __future__ import annotations

from pathlib import Path

from benchmarks.structure import measure


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_flow_is_followed_through_imports_and_re_exports(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "pipeline/tasks/incoming.py": "from pipeline import stage\n\ndef extract():\n    stage.run()\n",
            "pipeline/stage.py": (
                "from db import page\nfrom db.short import keep\n\n"
                "def run():\n    keep(page.SIZE)\n\ndef unused():\n    pass\n"
            ),
            "db/page.py": "SIZE = 500\n",
            "db/short.py": "from db.long import keep\n",
            "db/long.py": "def keep(size):\n    return Row(size)\n\nclass Row:\n    pass\n",
            "db/apart.py": "class Row:\n    pass\n",
        },
    )
    found = measure(tmp_path)

    assert found["flows"]["page"] == {"files": 4, "functions": 3}  # type: ignore[index]
    assert found["public_classes_of_one_name"] == {"Row": ["db.apart", "db.long"]}
    assert (found["files"], found["over_400"]) == (6, [])
