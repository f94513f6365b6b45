from pathlib import Path

from tunesmith.cli.flags import SECRET
from tunesmith.core.settings import Settings

PAGE = Path(__file__).parents[3] / "docs" / "settings.md"


def test_the_page_has_a_true_row_for_every_setting() -> None:
    expected: list[str] = []
    for name, field in Settings.model_fields.items():
        flag = "" if name in SECRET else f"`--{name.replace('_', '-')}`"
        variable = field.validation_alias or f"TUNESMITH_{name.upper()}"
        default = "" if field.default is None else f"`{field.default}`"
        expected.append(f"| `{name}` | {flag} | `{variable}` | {default} | {field.description} |")
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("| `")] == expected
