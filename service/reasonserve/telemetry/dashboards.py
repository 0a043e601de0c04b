"""Grafana dashboards from `panels`: ``python -m reasonserve.telemetry.dashboards FOLDER`` writes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasonserve.telemetry import metrics
from reasonserve.telemetry.panels import DASHBOARDS, Panel

WIDTH, HEIGHT, COLUMNS = 12, 8, 2
SCHEMA_VERSION = 39
"""Of Grafana 10 and later; newer ones migrate it."""
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(name: str, panels: Sequence[Panel]) -> dict[str, Any]:
    """Returns one dashboard in Grafana's JSON model."""
    return {
        "uid": f"reasonserve-{name}",
        "title": f"ReasonServe / {name.capitalize()}",
        "tags": ["reasonserve"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "links": [{"type": "dashboards", "tags": ["reasonserve"], "title": "ReasonServe", "asDropdown": False}],
        "templating": {"list": [_datasource(), _tenant()]},
        "panels": [_panel(index, panel) for index, panel in enumerate(panels)],
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _tenant() -> dict[str, Any]:
    return {
        "name": "tenant",
        "label": "Tenant",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({metrics.TENANT_LIMIT_SLOTS.exposed}, tenant)", "refId": "tenant"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(index: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(index, COLUMNS)
    return {
        "id": index + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "gridPos": {"x": column * WIDTH, "y": row * HEIGHT, "w": WIDTH, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": _style(panel)}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": expression, "legendFormat": legend}
            for number, (expression, legend) in enumerate(panel.lines)
        ],
    }


def _style(panel: Panel) -> dict[str, Any]:
    return {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none"},
    }


def files() -> dict[str, str]:
    """Returns the dashboards' texts by file name."""
    made = {name: dashboard(name, panels) for name, panels in DASHBOARDS.items()}
    return {f"{name}.json": json.dumps(data, indent=2) + "\n" for name, data in made.items()}


def main() -> None:
    """Writes the dashboards into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
