"""Tables of Markdown pages, read as rows."""

from __future__ import annotations

from pathlib import Path


def table(page: Path, column: str) -> list[dict[str, str]]:
    """Return the rows of all tables of a page that have this column."""
    rows: list[dict[str, str]] = []
    head: list[str] = []
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            head = []
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not head:
            head = cells
        elif column in head and not set(line) <= set("|-: "):
            assert len(cells) == len(head), f"{page}: {line}"
            rows.append(dict(zip(head, cells, strict=True)))
    return rows
