"""What a sampler's process logs, told in the server's own log."""

from pathlib import Path

from structlog.testing import capture_logs

from tunesmith.inference.process import SamplerProcess


def test_a_samplers_lines_are_the_servers_with_its_base():
    sampler = SamplerProcess("/bases/nano", Path("x.sock"), threads=1, queue=1, on_gone=lambda _: None)
    with capture_logs() as logs:
        sampler._relay('{"event": "sampler.turn", "level": "error", "timestamp": "then", "exception": "Traceback"}')
        sampler._relay("UserWarning: a library's")
        sampler._relay('{"event": "x", "level": "nothing"}')
    assert logs == [
        {"event": "sampler.turn", "log_level": "error", "base": "/bases/nano", "pid": None, "exception": "Traceback"},
        {
            "event": "sampler.said",
            "log_level": "warning",
            "base": "/bases/nano",
            "pid": None,
            "line": "UserWarning: a library's",
        },
        {"event": "x", "log_level": "warning", "base": "/bases/nano", "pid": None},
    ]
