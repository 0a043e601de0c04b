"""What the chart has from the typed values is current, and every value has its sentence."""

import json
import re
from importlib.metadata import version

import pytest
import yaml

from reasonserve.chart.__main__ import generated
from reasonserve.chart.document import fields
from reasonserve.chart.values import CONFIG, ReplicaGroup, Values
from reasonserve.config import ServiceConfig


@pytest.mark.parametrize("name", generated())
def test_generated_files_are_current(chart, name):
    assert (chart.folder / name).read_text() == generated()[name], "run make chart"


def test_the_configuration_in_the_schema_is_the_services(chart):
    """The independent oracle: pydantic's own schema of the configuration, without what people read."""

    def bare(entry):
        if isinstance(entry, dict):
            return {k: bare(v) for k, v in entry.items() if k not in ("title", "description") or isinstance(v, dict)}
        return [bare(item) for item in entry] if isinstance(entry, list) else entry

    schema = json.loads((chart.folder / "values.schema.json").read_text())
    expected = bare(ServiceConfig.model_json_schema())
    assert schema["properties"]["config"]["$ref"] == "#/$defs/ServiceConfig"
    assert {name: bare(schema["$defs"][name]) for name in expected["$defs"]} == expected["$defs"]
    assert bare(schema["$defs"]["ServiceConfig"])["properties"] == expected["properties"]


def test_every_mapping_of_the_schema_is_closed_or_open_by_intent(chart):
    schema = json.loads((chart.folder / "values.schema.json").read_text())
    sections = {"the values": schema} | schema["$defs"]
    assert [name for name, section in sections.items() if section.get("additionalProperties") is not False] == []


def test_the_values_file_holds_the_defaults(chart):
    values = yaml.safe_load((chart.folder / "values.yaml").read_text())
    assert Values.model_validate(values) == Values(config=ServiceConfig.model_validate(CONFIG))


def test_every_value_has_a_sentence():
    def silent(section, path=""):
        for key, sentence, value in fields(section):
            if not re.fullmatch(r".+[.]", sentence):
                yield f"{path}{key}: {sentence!r}"
            if hasattr(type(value), "model_fields"):
                yield from silent(value, f"{path}{key}.")

    assert [*silent(Values()), *silent(ReplicaGroup(name="any"))] == []


def test_the_chart_is_of_the_packages_version(chart):
    described = yaml.safe_load((chart.folder / "Chart.yaml").read_text())
    assert described["appVersion"] == version("reasonserve")
